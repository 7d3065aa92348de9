"""The training loop: its records, its resume and its refusals."""

import csv
import json

import pytest
import torch
from system_data import CONFIG, assert_same_state, make_data, without_seconds
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mcfa_fast.storage import CheckpointError
from mcfa_fast.systems.mcfa import MCFAConfig, MCFALosses
from mcfa_fast.systems.trainer import Trainer
from mcfa_fast.training import RunFolder, train

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]

pytestmark = pytest.mark.usefixtures("one_thread")


def read_metrics(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def read_events(folder, name):
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(e.step, pytest.approx(e.value, rel=1e-6)) for e in events.Scalars(name)]


def interrupt_at(last):
    def hook(epoch, *_):
        if epoch == last:
            raise KeyboardInterrupt

    return hook


# What the loop asks of a trainable


class Counting:
    """Two batches an epoch, of 3 rows and 1; its losses are its count of steps and 10 times it."""

    losses = ("total", "tenfold")

    def __init__(self):
        self.count, self.modes = 0.0, []

    def epoch(self, number, world):
        self.modes.append(f"train {number}")
        return ["abc", "d"]

    def step(self, batch, update):
        self.count += 1
        return torch.tensor([self.count, 10 * self.count])

    def eval(self):
        self.modes.append("eval")

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_losses_are_means_over_rows():
    history = train(Counting(), epochs=2)
    assert without_seconds(history) == [
        {"epoch": 1, "total": 3 / 4, "tenfold": 30 / 4},
        {"epoch": 2, "total": 7 / 4, "tenfold": 70 / 4},
    ]


def test_trainable_is_prepared_for_use_after_the_last_epoch_and_before_a_hook():
    plain, hooked = Counting(), Counting()
    train(plain, epochs=2)
    assert plain.modes == ["train 1", "train 2", "eval"]
    train(hooked, epochs=2, on_epoch_end=lambda epoch: hooked.modes.append(f"hook {epoch}"))
    assert hooked.modes == ["train 1", "eval", "hook 1", "train 2", "eval", "hook 2", "eval"]


def test_history_goes_on_from_where_it_ended():
    whole, parts = Counting(), Counting()
    expected = train(whole, epochs=3)
    history = train(parts, epochs=3, history=train(parts, epochs=1))
    assert without_seconds(history) == without_seconds(expected)


def test_any_trainable_resumes_in_a_run_folder(tmp_path):
    expected = train(Counting(), epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train(
            Counting(), epochs=3, run=RunFolder(tmp_path, {"a": 1}), on_epoch_end=interrupt_at(2)
        )
    history = train(Counting(), epochs=3, run=RunFolder(tmp_path, {"a": 1}))
    assert without_seconds(history) == without_seconds(expected)
    with pytest.raises(ValueError, match=r"a was 1 and is \(2|a was 1 and is 2"):
        RunFolder(tmp_path, {"a": 2})


def test_an_epoch_without_batches_is_an_error():
    empty = Counting()
    empty.epoch = lambda number, world: []
    with pytest.raises(ValueError, match="epoch 1: expected one batch or more, got none"):
        train(empty, epochs=1)


# Hook, history and run folder


def test_hook_sees_each_epoch_and_its_numbers_are_recorded(tmp_path):
    data = make_data()
    seen = []

    def hook(epoch, system):
        seen.append((epoch, system.model.training, torch.rand(1)))
        return {"accuracy": epoch / 10} if epoch > 1 else None

    trainer = Trainer(CONFIG, *data, run_dir=tmp_path, on_epoch_end=hook)
    system = trainer.fit()
    assert [entry[:2] for entry in seen] == [(1, False), (2, False), (3, False)]
    assert [metrics.get("accuracy") for metrics in trainer.history] == [None, 0.2, 0.3]
    assert [row["accuracy"] for row in read_metrics(tmp_path)] == ["", "0.2", "0.3"]
    assert_same_state(system, Trainer(CONFIG, *data).fit())


def test_hook_may_use_the_system_of_each_epoch():
    """What is computed once of final weights follows them from epoch to epoch."""
    features, labels, semantics = make_data()
    embedded = []

    def hook(epoch, system):
        embedded.append(system.embed(features))
        expected = system.model.encode_visual(features)[0].detach()
        torch.testing.assert_close(embedded[-1], expected, rtol=1e-4, atol=1e-5)

    Trainer(CONFIG, features, labels, semantics, on_epoch_end=hook).fit()
    assert len(embedded) == 3 and not torch.equal(embedded[0], embedded[2])


@pytest.mark.parametrize("name", ["total", "epoch", "seconds"])
def test_hook_cannot_overwrite_a_record(name):
    trainer = Trainer(CONFIG, *make_data(), on_epoch_end=lambda *_: {name: 0.0})
    with pytest.raises(ValueError, match=rf"on_epoch_end: the names \['{name}'\] are taken"):
        trainer.fit()


def test_progress_bar_shows_every_epoch(capsys):
    Trainer(CONFIG, *make_data(), progress=True).fit()
    assert "100%" in capsys.readouterr().out


def test_run_folder_records_the_run(tmp_path):
    folder = tmp_path / "new" / "run"
    trainer = Trainer(CONFIG, *make_data(), run_dir=folder)
    trainer.fit()
    identity = json.loads((folder / "training.json").read_text())
    assert MCFAConfig(**identity["config"]) == CONFIG
    assert (identity["system"], identity["device"]) == ("mcfa", "cpu")
    rows = [{k: float(v) for k, v in row.items()} for row in read_metrics(folder)]
    assert rows == trainer.history
    assert list(rows[0]) == ["epoch", *MCFALosses._fields, "seconds"]
    assert read_events(folder, "total") == [(m["epoch"], m["total"]) for m in trainer.history]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("interrupted_in", [1, 2, 3])
def test_interrupted_run_resumes_to_the_same_result(tmp_path, device, interrupted_in):
    data = make_data()
    expected = Trainer(CONFIG, *data, device=device)
    expected.fit()
    hook = interrupt_at(interrupted_in)
    with pytest.raises(KeyboardInterrupt):
        Trainer(CONFIG, *data, device=device, run_dir=tmp_path, on_epoch_end=hook).fit()
    assert len(read_metrics(tmp_path)) == interrupted_in - 1

    epochs = []
    trainer = Trainer(
        CONFIG,
        *data,
        device=device,
        run_dir=tmp_path,
        on_epoch_end=lambda epoch, _: epochs.append(epoch),
    )
    assert_same_state(trainer.fit(), expected.system)
    assert epochs == list(range(interrupted_in, 4))
    assert without_seconds(trainer.history) == without_seconds(expected.history)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1", "2", "3"]
    assert read_events(tmp_path, "total") == [(m["epoch"], m["total"]) for m in trainer.history]


def test_finished_run_is_returned_as_it_is(tmp_path):
    data = make_data()
    first = Trainer(CONFIG, *data, run_dir=tmp_path)
    first.fit()
    again = Trainer(CONFIG, *data, run_dir=tmp_path, on_epoch_end=lambda *_: pytest.fail("trained"))
    assert_same_state(again.fit(), first.system)
    assert again.history == first.history
    features = data[0]
    assert torch.equal(again.system.embed(features), first.system.embed(features))
    assert not again.system.model.training


def test_events_of_an_unfinished_epoch_are_dropped(tmp_path):
    data = make_data()
    Trainer(CONFIG, *data, run_dir=tmp_path).fit()
    after_two = tmp_path / "checkpoint.pt"
    # The state of a run that was killed when epoch 3 was recorded but not yet saved.
    other = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        Trainer(CONFIG, *data, run_dir=other, on_epoch_end=interrupt_at(3)).fit()
    after_two.write_bytes((other / "checkpoint.pt").read_bytes())
    Trainer(CONFIG, *data, run_dir=tmp_path).fit()
    assert [step for step, _ in read_events(tmp_path, "total")] == [1, 2, 3]
    assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1", "2", "3"]


# Refusals


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (
            CONFIG.replace(temperature=1, epochs=9),
            None,
            r"config.temperature was 2.0 and is 1.0; config.training.epochs was 3 and is 9",
        ),
        (CONFIG, "features", r"\(features was 'float32\[60, 10\] \w+' and is 'float32\[60, 10\]"),
        (CONFIG, "labels", r"\(labels was"),
        (CONFIG, "semantics", r"\(semantics was"),
    ],
)
def test_folder_of_another_run_is_refused(tmp_path, config, change, message):
    data = dict(zip(("features", "labels", "semantics"), make_data(), strict=True))
    Trainer(CONFIG, **data, run_dir=tmp_path).fit()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    if change:
        data[change] = data[change].clone()
        data[change][3] = 0
    with pytest.raises(ValueError, match=message):
        Trainer(config, **data, run_dir=tmp_path).fit()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_damaged_files_of_a_run_folder_are_named(tmp_path):
    data = make_data()
    Trainer(CONFIG, *data, run_dir=tmp_path).fit()
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: damaged"):
        Trainer(CONFIG, *data, run_dir=tmp_path).fit()
    identity = json.loads((tmp_path / "training.json").read_text())
    for text in ("{", "[1]", "3"):
        (tmp_path / "training.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"training\.json: damaged"):
            Trainer(CONFIG, *data, run_dir=tmp_path).fit()
    (tmp_path / "training.json").write_text(json.dumps(identity | {"old_option": 1}))
    with pytest.raises(ValueError, match="old_option was 1 and is None"):
        Trainer(CONFIG, *data, run_dir=tmp_path).fit()


def test_divergence_stops_the_run(tmp_path):
    config = CONFIG.replace(learning_rate=1e3)
    with pytest.raises(FloatingPointError, match=r"epoch \d: not finite any more: total"):
        Trainer(config, *make_data(), run_dir=tmp_path).fit()
