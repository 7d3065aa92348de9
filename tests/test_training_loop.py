"""Training, its records and its refusals."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.models import MCFA, MCFALoss, MCFALosses
from mcfa_fast.training import Trainer
from mcfa_fast.storage.checkpoint import CheckpointError
from mcfa_fast.training.sampler import make_sampler

SEEN, CLASSES, F, A = 4, 6, 10, 8
SMALL = {
    "epochs": 3,
    "classes_per_batch": 3,
    "instances_per_class": 4,
    "latent_features": 5,
    "visual_hidden": 12,
    "semantic_hidden": 7,
}
CONFIG = MCFAConfig.paper("gzsl", **SMALL)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


pytestmark = pytest.mark.usefixtures("one_thread")


def make_data(rows_per_class=15, seed=0):
    """Rows around one centre per seen class, labels and all classes' descriptors."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(SEEN, F, generator=generator)
    labels = torch.arange(SEEN).repeat(rows_per_class)
    features = centres[labels] + 0.3 * torch.randn(len(labels), F, generator=generator)
    return features, labels, torch.randn(CLASSES, A, generator=generator)


def assert_same_weights(model, other):
    for (name, value), wanted in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(value, wanted), name


def differ(model, other):
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs)


def read_metrics(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


# The computation


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        MCFAConfig.reference("zsl", offset_window=6, **SMALL),
        MCFAConfig.paper("zsl", sampler="batch", batch_size=16, **SMALL),
        CONFIG.replace(feature_scaling="none"),
    ],
    ids=["paper", "reference", "batch", "unscaled"],
)
def test_trainer_is_the_plain_loop(config):
    config = config.replace(learning_rate=1e-2)  # large enough for every detail to matter
    features, labels, semantics = make_data()
    trainer = Trainer(config, features, labels, semantics)
    trained = trainer.fit()

    low, high = features.min(0).values, features.max(0).values
    scaled = features if config.feature_scaling == "none" else (features - low) / (high - low)
    model = MCFA(F, A, config)
    objective = MCFALoss(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, amsgrad=True)
    sampler = make_sampler(config, labels, config.generator("sampler"))
    noise = config.generator("noise")
    for epoch in range(config.epochs):
        totals, instances = [], 0
        for rows, classes, local in sampler:
            optimizer.zero_grad()
            losses = objective(model(scaled[rows], semantics[classes], local, noise))
            losses.total.backward()
            optimizer.step()
            totals.append(losses.total.item())
            instances += len(rows)
        recorded = trainer.history[epoch]["total"]
        assert recorded == pytest.approx(sum(totals) / instances, rel=1e-4)
    for value, wanted in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-4)
    assert not trained.training


def test_training_lowers_the_loss():
    config = CONFIG.replace(epochs=12, learning_rate=3e-3)
    history = (trainer := Trainer(config, *make_data())).fit() and trainer.history
    assert history[-1]["total"] < 0.8 * history[0]["total"]
    assert [metrics["epoch"] for metrics in history] == list(range(1, 13))


@pytest.mark.parametrize("device", DEVICES)
def test_weights_depend_on_arguments_only(device):
    data = make_data()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = Trainer(CONFIG, *data, device=device).fit()
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    torch.manual_seed(2)
    assert_same_weights(Trainer(CONFIG, *data, device=device).fit(), first)
    assert differ(Trainer(CONFIG.replace(seed=1), *data, device=device).fit(), first)


def test_mode_is_only_a_label():
    config = MCFAConfig.reference("gzsl", selection="last", **SMALL)
    data = make_data()
    relabelled = config.replace(mode="paper")
    assert_same_weights(Trainer(config, *data).fit(), Trainer(relabelled, *data).fit())


@pytest.mark.parametrize("sampler", ["episodic", "batch"])
def test_classes_without_training_rows_have_no_influence(sampler):
    features, labels, semantics = make_data()
    config = CONFIG.replace(sampler=sampler, batch_size=16)
    changed = semantics.clone()
    changed[SEEN:] = 100
    first = Trainer(config, features, labels, semantics).fit()
    assert_same_weights(Trainer(config, features, labels, changed).fit(), first)
    changed[0] += 1
    assert differ(Trainer(config, features, labels, changed).fit(), first)


def test_class_numbers_may_have_gaps():
    features, labels, semantics = make_data()
    order = torch.tensor([4, 0, 5, 2, 1, 3])  # new number of each class, seen ones not in order
    moved = torch.empty_like(semantics)
    moved[order] = semantics
    trainer = Trainer(CONFIG, features, order[labels], moved)
    trainer.fit()
    assert trainer.history[-1]["vtos"] < 1.2 * np.log(3)


def test_warmups_change_the_weights_of_each_epoch():
    warmups = {"kl_warmup": (0, 2), "alignment_warmup": (2, 3)}
    config = MCFAConfig(**SMALL | {"epochs": 4}, **warmups)
    trainer = Trainer(config, *make_data())
    trainer.fit()
    for losses, (kl, alignment) in zip(
        trainer.history, [(0.5, 0), (1, 0), (1, 1), (1, 1)], strict=True
    ):
        weighted = (
            losses["reconstruction"]
            + kl * losses["kl"]
            + 10 * losses["cross_reconstruction"]
            + alignment * losses["alignment"]
            + 100 * losses["vtov"]
            + 100 * losses["vtos"]
            + 10 * losses["stov"]
        )
        assert losses["total"] == pytest.approx(weighted, rel=1e-6)


@pytest.mark.parametrize("rule, factor", [("none", 1), ("sqrt", 0.8), ("linear", 0.64)])
def test_learning_rate_scales_with_the_batch(rule, factor):
    config = MCFAConfig(**SMALL, sampler="batch", batch_size=16, learning_rate_scaling=rule)
    trainer = Trainer(config, *make_data())
    (group,) = trainer._optimizer.param_groups
    assert group["lr"] == pytest.approx(factor * config.learning_rate)


# Arguments


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, ">f4"])
def test_arrays_of_any_kind_are_accepted(dtype):
    features, labels, semantics = make_data()
    features = (features * 100).round()
    expected = Trainer(CONFIG, features, labels, semantics).fit()
    array = np.asfortranarray(features.numpy().astype(dtype))
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = Trainer(CONFIG, array, labels.numpy().astype(np.uint8), semantics.tolist())
    assert_same_weights(trainer.fit(), expected)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"features": torch.zeros(3)}, ValueError, r"features: expected a non-empty matrix"),
        ({"features": torch.zeros(0, F)}, ValueError, r"features: .* got shape \[0, 10\]"),
        ({"features": [["a", "b"]]}, TypeError, "features: expected numbers"),
        ({"features": torch.zeros(60, F) * 1j}, TypeError, "features: expected real numbers"),
        ({"labels": torch.zeros(60)}, TypeError, "labels: expected integers, got torch.float32"),
        ({"labels": torch.zeros(60) > 1}, TypeError, "labels: expected integers, got torch.bool"),
        ({"labels": torch.zeros(59, dtype=int)}, ValueError, r"labels: expected one per row .*60"),
        ({"labels": torch.full((60,), 6)}, ValueError, r"labels: expected 0\.\.5 .* got 6\.\.6"),
        ({"labels": torch.full((60,), -1)}, ValueError, r"labels: expected 0\.\.5 .* got -1"),
        ({"semantics": torch.zeros(A)}, ValueError, "semantics: expected a non-empty matrix"),
        ({"semantics": torch.full((6, A), torch.nan)}, ValueError, "semantics: row 0 has a value"),
    ],
)
def test_wrong_data_is_refused_by_name(changes, error, message):
    data = dict(zip(("features", "labels", "semantics"), make_data(), strict=True))
    with pytest.raises(error, match=message):
        Trainer(CONFIG, **{**data, **changes})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_first_row_that_is_not_finite_is_named(value):
    features, labels, semantics = make_data()
    features = features.double()
    features[[41, 17], 2] = value
    with pytest.raises(ValueError, match="features: row 17 has a value that is not finite"):
        Trainer(CONFIG, features, labels, semantics)


def test_divergence_stops_the_run(tmp_path):
    features, labels, semantics = make_data()
    config = CONFIG.replace(learning_rate=1e3)
    with pytest.raises(FloatingPointError, match=r"epoch \d: not finite any more: total.*1000"):
        Trainer(config, features, labels, semantics, run_dir=tmp_path).fit()


# Hook, history and run folder


def test_hook_sees_each_epoch_and_its_numbers_are_recorded(tmp_path):
    data = make_data()
    seen = []

    def hook(epoch, model):
        seen.append((epoch, model.training, torch.rand(1)))
        return {"accuracy": epoch / 10} if epoch > 1 else None

    trainer = Trainer(CONFIG, *data, run_dir=tmp_path, on_epoch_end=hook)
    model = trainer.fit()
    assert [entry[:2] for entry in seen] == [(1, False), (2, False), (3, False)]
    assert [metrics.get("accuracy") for metrics in trainer.history] == [None, 0.2, 0.3]
    assert [row["accuracy"] for row in read_metrics(tmp_path)] == ["", "0.2", "0.3"]
    assert_same_weights(model, Trainer(CONFIG, *data).fit())


def test_hook_cannot_overwrite_a_loss():
    trainer = Trainer(CONFIG, *make_data(), on_epoch_end=lambda *_: {"total": 0.0})
    with pytest.raises(ValueError, match=r"on_epoch_end: the names \['total'\] are taken"):
        trainer.fit()


def test_progress_bar_shows_every_epoch(capsys):
    Trainer(CONFIG, *make_data(), progress=True).fit()
    assert "100%" in capsys.readouterr().out


def test_run_folder_records_the_run(tmp_path):
    folder = tmp_path / "new" / "run"
    trainer = Trainer(CONFIG, *make_data(), run_dir=folder)
    trainer.fit()
    assert MCFAConfig.model_validate_json((folder / "config.json").read_text()) == CONFIG
    rows = [{k: float(v) for k, v in row.items()} for row in read_metrics(folder)]
    assert rows == trainer.history
    assert list(rows[0]) == ["epoch", *MCFALosses._fields, "seconds"]
    assert read_events(folder, "total") == [(m["epoch"], m["total"]) for m in trainer.history]


def read_events(folder, name):
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(e.step, pytest.approx(e.value, rel=1e-6)) for e in events.Scalars(name)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("interrupted_in", [1, 2, 3])
def test_interrupted_run_resumes_to_the_same_result(tmp_path, device, interrupted_in):
    data = make_data()
    expected = Trainer(CONFIG, *data, device=device)
    expected.fit()

    def interrupt(epoch, model):
        if epoch == interrupted_in:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(CONFIG, *data, device=device, run_dir=tmp_path, on_epoch_end=interrupt).fit()
    assert len(read_metrics(tmp_path)) == interrupted_in - 1

    epochs = []
    trainer = Trainer(
        CONFIG,
        *data,
        device=device,
        run_dir=tmp_path,
        on_epoch_end=lambda epoch, _: epochs.append(epoch),
    )
    assert_same_weights(trainer.fit(), expected.model)
    assert epochs == list(range(interrupted_in, 4))
    without_time = [{k: v for k, v in m.items() if k != "seconds"} for m in expected.history]
    assert [{k: v for k, v in m.items() if k != "seconds"} for m in trainer.history] == without_time
    assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1", "2", "3"]
    assert read_events(tmp_path, "total") == [(m["epoch"], m["total"]) for m in trainer.history]


def test_finished_run_is_returned_as_it_is(tmp_path):
    data = make_data()
    first = Trainer(CONFIG, *data, run_dir=tmp_path)
    first.fit()
    again = Trainer(CONFIG, *data, run_dir=tmp_path, on_epoch_end=lambda *_: pytest.fail("trained"))
    assert_same_weights(again.fit(), first.model)
    assert again.history == first.history


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


def interrupt_at(last):
    def hook(epoch, model):
        if epoch == last:
            raise KeyboardInterrupt

    return hook


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (CONFIG.replace(temperature=1, epochs=9), None, r"epochs was 3 and is 9; temperature was"),
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
    for text in ("{", "[1]", "3"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json: damaged"):
            Trainer(CONFIG, *data, run_dir=tmp_path).fit()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.model_dump() | {"old_option": 1}))
    with pytest.raises(ValueError, match="old_option was 1 and is None"):
        Trainer(CONFIG, *data, run_dir=tmp_path).fit()


# Options beyond the paper's


def test_a_linear_contrastive_model_trains_and_resumes(tmp_path):
    config = MCFAConfig(
        **SMALL | {"visual_hidden": None, "semantic_hidden": None, "epochs": 4},
        sampler="batch",
        batch_size=16,
        reconstruction_weight=0,
        cross_reconstruction_weight=0,
        kl_weight=0,
        temperature=0.2,
        contrast="means",
        visual_dropout=0.3,
        feature_scaling="unit",
        semantic_scaling="unit",
        learning_rate=1e-2,
    )
    features, labels, semantics = make_data()
    semantics[SEEN:] = 1e3  # of no influence, not on the scaling either
    whole = Trainer(config, features, labels, semantics)
    model = whole.fit()
    assert whole.history[-1]["total"] < 0.9 * whole.history[0]["total"]
    seen = torch.nn.functional.normalize(semantics[:SEEN], dim=1)
    torch.testing.assert_close(model.semantic_scaler.offset, seen.mean(0))

    def stop(epoch, _):
        if epoch == 2:
            raise KeyboardInterrupt

    data = (features, labels, semantics)
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, *data, run_dir=tmp_path, on_epoch_end=stop).fit()
    assert_same_weights(Trainer(config, *data, run_dir=tmp_path).fit(), model)
