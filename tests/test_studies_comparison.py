"""Methods run on a split: what they give, and what may not influence them."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, UNSEEN, config, make_images, make_semantics

import mcfa_fast as mf
from mcfa_fast import data, presets
from mcfa_fast.baselines import Ridge
from mcfa_fast.data.splits import Rows, RowSplits
from mcfa_fast.evaluation import evaluate
from mcfa_fast.experiments.run import OPTIMISTIC
from mcfa_fast.studies import (
    METHODS,
    BaselineMethod,
    Comparison,
    MCFAMethod,
    comparison,
    plan,
    resolve_methods,
    resolve_splits,
    select,
)
from mcfa_fast.studies import methods as module
from mcfa_fast.experiments.compare import data_fingerprint, job_identity
from mcfa_fast.storage.checkpoint import read_checkpoint
from mcfa_fast.training.run_folder import changes

DIGITS = data.load("digits")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["zsl", "gzsl"])
def task(request):
    return request.param


def make_dataset():
    """Splits by row, so that test labels may be anything."""
    features, labels = make_images(np.arange(NEW), rows=24)
    rows = np.arange(len(labels))
    seen, early = np.isin(labels, SEEN), rows % 24 < 16
    splits = RowSplits(
        zsl={"own": Rows(rows[seen], rows[~seen])},
        gzsl={"own": Rows(rows[seen & early], rows[~seen], rows[seen & ~early])},
    )
    names = tuple("abcdefghijkl")
    return data.Dataset("small", features, labels, names, make_semantics()[:NEW], splits)


DATASET = make_dataset()


def garbled(task):
    """Garbage in the place of all test labels, and of the test images."""
    rng = np.random.default_rng(0)
    labels, features = DATASET.labels.copy(), DATASET.features.copy()
    split = DATASET.split("own", generalized=task == "gzsl")
    for rows, classes in ((split.test_seen, SEEN), (split.test_unseen, UNSEEN)):
        labels[rows] = rng.choice(classes, size=len(rows))
        features[rows] = 100 * rng.normal(size=(len(rows), features.shape[1]))
    return dataclasses.replace(DATASET, labels=labels, features=features)


def small_mcfa(task):
    """MCFA that trains within a second, and chooses epochs and calibration."""
    options = config(task, epochs=6, classifier_epochs=2).model_dump(exclude={"task", "seed"})
    return MCFAMethod("paper", {**options, "selection": "validation"})


def state(estimator):
    """All that fitting has computed, by name."""
    found = {}
    for name, value in vars(estimator).items():
        if name.endswith("_"):
            parts = {"": value}
            if isinstance(value, torch.nn.Module):
                parts = value.state_dict()
            elif dataclasses.is_dataclass(value):
                parts = vars(value)
            elif hasattr(value, "_asdict"):
                parts = value._asdict()
            found |= {f"{name}.{key}": np.asarray(part) for key, part in parts.items()}
    return found


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if isinstance(m, BaselineMethod)])
def test_test_rows_do_not_influence_baselines(name, task, monkeypatch, tmp_path):
    """Bitwise the same hyperparameters, calibration and weights."""
    fitted = []

    def spy(classifier, dataset, split):
        fitted.append(classifier)
        return evaluate(classifier, dataset, split)

    monkeypatch.setattr(module, "evaluate", spy)
    clean, garbage = (
        METHODS[name].run(dataset, "own", task, 0, device="cpu", folder=tmp_path)[0]
        for dataset in (DATASET, garbled(task))
    )
    assert clean.chosen == garbage.chosen
    assert set(METHODS[name].grid) < set(clean.chosen)
    first, second = map(state, fitted)
    assert first.keys() == second.keys()
    for key in first:
        assert np.array_equal(first[key], second[key]), key
    assert fitted[0].get_params() == fitted[1].get_params()
    assert (fitted[0].calibration is None) == (task == "zsl")
    # The garbage did arrive where it may.
    assert clean.evaluation.accuracy != garbage.evaluation.accuracy


def test_test_rows_do_not_influence_mcfa(task, tmp_path):
    method = small_mcfa(task)
    results, states, choices = [], [], []
    for name, dataset in (("clean", DATASET), ("garbage", garbled(task))):
        folder = tmp_path / name
        results.append(method.run(dataset, "own", task, 0, device="cpu", folder=folder))
        heads = read_checkpoint(folder / "classifier.pt")["heads"]
        states.append({**heads["model"], **heads["softmax"]})
        choices.append(json.loads((folder / "results.json").read_text())["validation"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert choices[0] == choices[1] is not None
    assert bool(choices[0]["calibration"]) == (task == "gzsl")
    _, nearest, _ = zip(*results, strict=True)
    assert [outcome.method for outcome in results[0]] == ["/softmax", "/nearest", "/ensemble"]
    assert nearest[0].evaluation.accuracy != nearest[1].evaluation.accuracy


def test_result_is_that_of_the_chosen_setting(task, tmp_path):
    method = METHODS["ridge"]
    (outcome,) = method.run(DIGITS, "7/3:1", task, 5, device="cpu", folder=tmp_path)
    split = DIGITS.split("7/3:1", generalized=task == "gzsl")
    images = DIGITS.features[split.train], DIGITS.labels[split.train], DIGITS.semantics
    chosen = select(Ridge(task=task), method.settings, *images, seed=5)
    baseline = Ridge(task=task, calibration=chosen.calibration, **chosen.parameters).fit(*images)
    wanted = evaluate(baseline, DIGITS, split)
    assert outcome.evaluation.to_dict() == wanted.to_dict()
    assert outcome.chosen == {**chosen.parameters, "validation_score": chosen.score}


def test_classes_that_a_split_leaves_out_take_no_part(task, tmp_path):
    (outcome,) = METHODS["ridge"].run(DIGITS, "5/2:seed=1", task, 0, device="cpu", folder=tmp_path)
    assert len(outcome.evaluation.classes) == (2 if task == "zsl" else 7)


def test_reference_is_labelled_as_optimistic(tmp_path):
    options = {"epochs": 1, "classifier_epochs": 2}
    softmax, nearest, ensemble = MCFAMethod("reference", options).run(
        DIGITS, "7/3:0", "zsl", 0, device="cpu", folder=tmp_path
    )
    assert softmax.evaluation.note == ensemble.evaluation.note == OPTIMISTIC
    assert nearest.evaluation.note == ""
    assert METHODS["mcfa-reference"].config("zsl", 3).selection == "test"
    assert METHODS["mcfa-paper"].config("gzsl", 3).selection == "validation"
    assert METHODS["mcfa-paper"].config("gzsl", 3).seed == 3


def test_work_gives_rows(task, tmp_path):
    work = Comparison("digits", None, None, tmp_path)
    (row,) = work({"method": "ridge", "split": "7/3:0", "task": task, "seed": 0})
    assert row["classifier"] == "ridge" and set(row["chosen"]) == {"penalty", "validation_score"}
    assert ("harmonic" in row) == (task == "gzsl")
    assert row == json.loads(json.dumps(row, allow_nan=False))


def identity(method, task="zsl"):
    """As it is read back from a file."""
    job = {"method": method, "split": "7/3:0", "task": task, "seed": 3}
    return json.loads(json.dumps(job_identity({"labels": "of AID"}, job), allow_nan=False))


@pytest.mark.parametrize("name", METHODS)
def test_identity_has_every_option(name, task):
    found, method = identity(name, task), METHODS[name]
    assert (found["version"], found["data"]) == (mf.__version__, {"labels": "of AID"})
    found = found["method"]
    assert found["rows"] == list(method.rows)
    if isinstance(method, MCFAMethod):
        config = mf.MCFAConfig.model_validate(found["config"])
        assert config == method.config(task, 3) and (config.task, config.seed) == (task, 3)
        assert found["config"].keys() == mf.MCFAConfig.model_fields.keys()
    else:
        grid = {key: list(values) for key, values in method.grid.items()}
        assert (found["estimator"], found["grid"]) == (method.estimator.__name__, grid)
        # The job or the choice on folds sets the others.
        parameters = method.estimator(task=task).get_params()
        others = parameters.keys() - grid.keys() - {"seed", "device", "calibration"}
        assert found["parameters"] == {key: parameters[key] for key in others}


def test_identity_follows_presets_and_methods(monkeypatch):
    names = ("mcfa-best", "mcfa-paper", "mcfa-batch-256", "ale", "ridge")
    before = {name: identity(name) for name in names}

    def changed():
        texts = {name: changes(before[name], identity(name)) for name in names}
        monkeypatch.undo()
        return {name: text for name, text in texts.items() if text}

    monkeypatch.setitem(presets._BEST, "epochs", 9)
    assert changed() == {"mcfa-best": ["method.config.epochs was 8 and is 9"]}
    monkeypatch.setitem(presets._TASK["zsl"], "unseen_latents", 100)
    text = ["method.config.unseen_latents was 200 and is 100"]
    assert changed() == dict.fromkeys(["mcfa-best", "mcfa-paper", "mcfa-batch-256"], text)
    monkeypatch.setitem(METHODS["mcfa-batch-256"].options, "batch_size", 128)
    assert changed() == {"mcfa-batch-256": ["method.config.batch_size was 256 and is 128"]}
    monkeypatch.setitem(METHODS["ridge"].grid, "penalty", (1.0,))
    assert [text.split(" was")[0] for text in changed()["ridge"]] == ["method.grid.penalty"]
    monkeypatch.setitem(METHODS["ale"].estimator.__init__.__kwdefaults__, "batch_size", 32)
    assert changed() == {"ale": ["method.parameters.batch_size was 64 and is 32"]}
    monkeypatch.setattr(comparison, "METHODS", {name: METHODS[name] for name in names[:-1]})
    assert changed()["ridge"][0].endswith("and is None")


def test_plan_has_every_combination():
    jobs = plan(["a", "b"], ["s", "t"], ["zsl", "gzsl"], [0, 1])
    assert len(jobs) == len({json.dumps(job) for job in jobs}) == 16
    assert [job["method"] for job in jobs[:2]] == ["a", "b"]
    with pytest.raises(ValueError, match="tasks: expected 'zsl' or 'gzsl', got 'both'"):
        plan(["a"], ["s"], ["both"], [0])


def test_splits_by_name_and_by_ratio():
    assert resolve_splits(DIGITS, ["7/3:2", "7/3", "6/4:seed=1"]) == [
        *["7/3:2", "7/3:0", "7/3:1", "7/3:3", "7/3:4"],
        "6/4:seed=1",
    ]
    assert resolve_splits(DATASET, ["own"]) == ["own"]
    with pytest.raises(data.DatasetError, match="no split '8/2'"):
        resolve_splits(DIGITS, ["8/2"])


def test_methods_by_name_and_by_group():
    mcfa = ["mcfa-best", "mcfa-paper", "mcfa-reference"]
    assert resolve_methods(["mcfa", "ridge"]) == ["ridge", *mcfa]
    with pytest.raises(ValueError, match="methods: expected names among eszsl, .* got 'gan'"):
        resolve_methods(["gan"])


def test_fingerprint_follows_the_content():
    whole = data_fingerprint(DATASET)
    assert whole == data_fingerprint(make_dataset())
    other = garbled("gzsl")
    assert {key for key, text in data_fingerprint(other).items() if text != whole[key]} == {
        "features",
        "labels",
    }
    fewer = dataclasses.replace(DATASET, splits=RowSplits(DATASET.splits.zsl, {}))
    assert data_fingerprint(fewer)["splits"] != whole["splits"]
