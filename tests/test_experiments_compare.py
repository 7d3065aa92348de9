"""Systems compared on a split: what they give, and what may not influence them."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from experiment_data import DATASET, SPLIT, garbled, learned, make_dataset
from zero_shot_data import config

import mcfa_fast as mf
from mcfa_fast import data
from mcfa_fast.classifiers import RunConfig, ZeroShotClassifier
from mcfa_fast.data.save import save_folder
from mcfa_fast.data.splits import RowSplits
from mcfa_fast.evaluation import ResultWarning, evaluate
from mcfa_fast.experiments import Comparison, Contestant, plan, resolve_splits
from mcfa_fast.experiments.compare import data_fingerprint, job_identity
from mcfa_fast.experiments.run import OPTIMISTIC, run
from mcfa_fast.selection.folds import selection_folds
from mcfa_fast.storage import changes
from mcfa_fast.systems import registry
from mcfa_fast.systems.mcfa import presets

DIGITS = data.load("digits")
QUICK = ("eszsl", "ridge", "sae", "dap")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["zsl", "gzsl"])
def task(request):
    return request.param


@pytest.fixture
def short(monkeypatch):
    """Contestants of MCFA that train within a second."""
    original = Contestant.config

    def tiny(self, task, seed, **mode):
        found = original(self, task, seed, **mode)
        small = config(task, epochs=2, **{"softmax.epochs": 2})
        return found.model_copy(update={"options": small.options, "heads": small.heads})

    monkeypatch.setattr(Contestant, "config", tiny)


def work_on(dataset, tmp_path):
    """The work of jobs on a dataset that is written to a folder first."""
    return Comparison(str(save_folder(dataset, tmp_path / "data")), None, None, tmp_path / "runs")


def job_of(contestant, task, split=SPLIT, seed=0):
    (job,) = plan([contestant], [split], [task], [seed])
    return job


@pytest.mark.parametrize("name", QUICK)
def test_test_rows_do_not_influence_what_is_chosen_and_learned(name, task, tmp_path):
    """Bitwise the same options, calibration and weights."""
    found = []
    for kind, dataset in (("clean", DATASET), ("garbage", garbled(task))):
        (tmp_path / kind).mkdir()
        work, job = work_on(dataset, tmp_path / kind), job_of(Contestant(name, "paper"), task)
        (row,) = work(job)
        content = json.loads((work.run_folder(job) / "results.json").read_text())
        found.append((row, content["run"], content["selection"], learned(work.run_folder(job))))
    (clean, run_, selection, weights), (garbage, other_run, other_selection, others) = found
    assert (run_, selection) == (other_run, other_selection)
    assert clean["chosen"] == garbage["chosen"]
    assert clean["chosen"]["setting"].keys() == registry.find(name).grid.keys()
    assert weights.keys() == others.keys() and weights
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    assert bool(selection["calibration"]) == (task == "gzsl")
    # The garbage did arrive where it may.
    assert clean["accuracy"] != garbage["accuracy"]


def test_result_is_that_of_the_chosen_setting(task, tmp_path):
    (row,) = Comparison("digits", None, None, tmp_path)(
        job_of(Contestant("ridge", "paper"), task, "7/3:1", seed=5)
    )
    split = DIGITS.split("7/3:1", generalized=task == "gzsl")
    own = {"options": row["chosen"]["setting"], "calibration": row.get("calibration")}
    classifier = ZeroShotClassifier("ridge", task=task, seed=5, **own)
    classifier.fit(DIGITS.features[split.train], DIGITS.labels[split.train], DIGITS.semantics)
    wanted = evaluate(classifier, DIGITS, split)
    assert row["accuracy"] == wanted.accuracy
    if task == "gzsl":
        assert row["harmonic"] == wanted.generalized.harmonic
        assert row["ausuc"] == wanted.generalized.ausuc


def test_every_contestant_is_judged_on_the_same_folds(task, tmp_path, monkeypatch):
    """The grid and the calibration of all systems with a seed see the very same rows."""
    judged = {}

    def spy(labels, count, *, generalized, seed):
        folds = selection_folds(labels, count, generalized=generalized, seed=seed)
        judged.setdefault(system, []).append((count, seed, [fold.test for fold in folds]))
        return folds

    monkeypatch.setattr("mcfa_fast.classifiers.selecting.selection_folds", spy)
    work = Comparison("digits", None, None, tmp_path)
    for system in ("eszsl", "ridge", "sae"):
        work(job_of(Contestant(system, "paper"), task, "7/3:0", seed=2))
    ((count, seed, tests),) = judged["eszsl"]
    assert (count, seed) == (3, 2)
    for others in judged.values():
        assert len(others) == 1 and others[0][:2] == (count, seed)
        assert all(np.array_equal(a, b) for a, b in zip(tests, others[0][2], strict=True))


def test_rows_say_what_was_run_and_chosen(task, tmp_path):
    (row,) = Comparison("digits", None, None, tmp_path)(
        job_of(Contestant("ridge", "paper"), task, "7/3:0")
    )
    assert (row["label"], row["head"], row["note"]) == ("ridge", "scores", "")
    assert (row["seen_classes"], row["unseen_classes"]) == (7, 3)
    assert row["chosen"].keys() == {"setting", "fold_score", "fold_classes", "by_head"}
    assert row["chosen"]["fold_classes"] == ([3, 2, 2] if task == "zsl" else [7, 7, 7])
    assert ("harmonic" in row) == (task == "gzsl")
    assert row == json.loads(json.dumps(row, allow_nan=False))


def test_one_row_per_head(task, tmp_path, short):
    work, job = work_on(DATASET, tmp_path), job_of(Contestant("mcfa", "v0"), task)
    rows = work(job)
    assert [row["label"] for row in rows] == [
        "mcfa:v0/softmax",
        "mcfa:v0/nearest",
        "mcfa:v0/ensemble",
    ]
    assert all(row["chosen"]["by_head"] == "softmax" for row in rows)
    assert ["weight" in row["chosen"] for row in rows] == [False, False, True]
    results = json.loads((work.run_folder(job) / "results.json").read_text())["results"]
    assert [row["accuracy"] for row in rows] == [
        results[head]["accuracy"] for head in ("softmax", "nearest", "ensemble")
    ]


def test_reference_is_labelled_as_optimistic(tmp_path, short):
    work = work_on(DATASET, tmp_path)
    softmax, nearest, ensemble = work(job_of(Contestant("mcfa", "reference"), "zsl"))
    assert softmax["note"] == ensemble["note"] == OPTIMISTIC and nearest["note"] == ""
    assert softmax["chosen"] == {}


def test_a_job_resumes_in_its_folder(tmp_path, short, monkeypatch):
    work = work_on(DATASET, tmp_path)
    job = job_of(Contestant("mcfa", "paper"), "zsl")
    first = work(job)
    monkeypatch.setattr(
        "mcfa_fast.training.run_folder.RunFolder.finish_epoch", lambda *_: pytest.fail("it trains")
    )
    assert work(job) == first


def test_folders_of_runs_are_names_and_differ(tmp_path):
    work = Comparison("digits", None, None, tmp_path)
    names = ["../../x", "a/b", "a:b", "a_b", "é" * 300]
    folders = [
        work.run_folder(job_of(Contestant("eszsl", "paper"), "zsl", split=name)) for name in names
    ]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert folder.parent == tmp_path and len(folder.name.encode()) < 255
        folder.mkdir()


def test_workers_do_not_warn(tmp_path):
    labels = DATASET.labels.copy()
    labels[labels >= 10] = 21 - labels[labels >= 10]
    work = work_on(dataclasses.replace(DATASET, labels=labels), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResultWarning)
        (row,) = work(job_of(Contestant("eszsl", "paper"), "zsl"))
    assert row["accuracy"] < 0.5


def identity(contestant, task="zsl"):
    """As it is read back from a file."""
    found = job_identity({"labels": "of AID"}, job_of(contestant, task, seed=3))
    return json.loads(json.dumps(found, allow_nan=False))


@pytest.mark.parametrize("system", registry.SYSTEMS)
def test_identity_has_every_option(system, task):
    entry = registry.SYSTEMS[system]
    for preset in entry.presets:
        found = identity(Contestant(system, preset), task)
        assert (found["version"], found["data"]) == (mf.__version__, {"labels": "of AID"})
        assert found["grid"] == {key: list(values) for key, values in entry.grid.items()}
        wanted = Contestant(system, preset).config(task, 3)
        assert RunConfig.model_validate(found["run"]) == wanted
        assert (wanted.task, wanted.options.seed) == (task, 3)


def test_identity_follows_presets_and_grids(monkeypatch):
    contestants = {
        one.name: one
        for one in (
            Contestant("dual-encoder", "recommended"),
            Contestant("mcfa", "paper"),
            Contestant("mcfa", "batch-256"),
            Contestant("ridge", "paper"),
        )
    }
    before = {name: identity(one) for name, one in contestants.items()}

    def changed():
        texts = {name: changes(before[name], identity(one)) for name, one in contestants.items()}
        monkeypatch.undo()
        return {name: text for name, text in texts.items() if text}

    softmax = presets._TASK["zsl"][1]
    monkeypatch.setitem(softmax, "unseen_samples", 100)
    text = ["run.heads.softmax.unseen_samples was 200 and is 100"]
    assert changed() == dict.fromkeys(["mcfa", "mcfa:batch-256"], text)
    monkeypatch.setitem(presets.CHANGES["batch-256"], "batch_size", 128)
    text = ["run.options.training.batch_size was 256 and is 128"]
    assert changed() == {"mcfa:batch-256": text}
    ridge = dataclasses.replace(registry.find("ridge"), grid={"penalty": (1.0,)})
    monkeypatch.setitem(registry.SYSTEMS, "ridge", ridge)
    assert [text.split(" was")[0] for text in changed()["ridge"]] == ["grid.penalty"]
    monkeypatch.delitem(registry.SYSTEMS, "ridge")
    job = job_of(Contestant("ridge", "paper"), "zsl", seed=3)
    gone = changes(before["ridge"], job_identity({"labels": "of AID"}, job))
    assert all(text.endswith("and is None") for text in gone) and len(gone) == 2


def test_plan_has_every_combination():
    contestants = [Contestant("eszsl", "paper"), Contestant("ridge", "paper")]
    jobs = plan(contestants, ["s", "t"], ["zsl", "gzsl"], [0, 1])
    assert len(jobs) == len({json.dumps(job) for job in jobs}) == 16
    assert [job["system"] for job in jobs[:2]] == ["eszsl", "ridge"]
    with pytest.raises(ValueError, match="task: expected 'zsl' or 'gzsl', got 'both'"):
        plan(contestants, ["s"], ["both"], [0])


def test_splits_by_name_and_by_ratio():
    assert resolve_splits(DIGITS, ["7/3:2", "7/3", "6/4:seed=1"]) == [
        *["7/3:2", "7/3:0", "7/3:1", "7/3:3", "7/3:4"],
        "6/4:seed=1",
    ]
    assert resolve_splits(DATASET, ["10/2"]) == [SPLIT]
    with pytest.raises(data.DatasetError, match="no split '8/2'"):
        resolve_splits(DIGITS, ["8/2"])


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


@pytest.mark.filterwarnings("ignore::mcfa_fast.evaluation.ResultWarning")
def test_a_run_of_its_own_gives_the_same_as_a_job(tmp_path):
    contestant = Contestant("ridge", "paper")
    (row,) = Comparison("digits", None, None, tmp_path)(job_of(contestant, "zsl", "7/3:0"))
    results = run(contestant.config("zsl", 0), DIGITS, "7/3:0")
    assert results["scores"].accuracy == row["accuracy"]
