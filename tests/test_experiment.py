"""Whole experiments: their results, their files, and what may not influence them."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, UNSEEN, config, make_images, make_semantics

from mcfa_fast import data
from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.data.splits import Split
from mcfa_fast.evaluation import harmonic_mean
from mcfa_fast.experiments.run import OPTIMISTIC, run
from mcfa_fast.inference import METHODS, MCFAClassifier, encode_images
from mcfa_fast.training import Trainer
from mcfa_fast.storage.checkpoint import read_checkpoint
from mcfa_fast.training.run_folder import RunFolder

CLASSES = np.arange(NEW)
NAMES = tuple("abcdefghijkl")


def make_dataset():
    features, labels = make_images(CLASSES, rows=24)
    return data.Dataset("small", features, labels, NAMES, make_semantics()[:NEW])


def make_split(dataset, generalized):
    """Of each seen class, the first 16 rows are for training and the last 8 for testing."""
    rows = np.arange(len(dataset.labels))
    seen = np.isin(dataset.labels, SEEN)
    early = rows % 24 < 16
    return Split(
        name="10/2",
        generalized=generalized,
        seen_classes=SEEN,
        unseen_classes=UNSEEN,
        train=rows[seen & (early | (not generalized))],
        test_seen=rows[seen & ~early & generalized],
        test_unseen=rows[~seen],
    )


DATASET = make_dataset()
SPLITS = {"zsl": make_split(DATASET, False), "gzsl": make_split(DATASET, True)}
# Few enough epochs for imperfect results, so that the numbers can tell mistakes.
SHORT = {"epochs": 25, "classifier_epochs": 4}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["zsl", "gzsl"])
def task(request):
    return request.param


def reference(task, **options):
    return config(task, mode="reference", selection="test", **{**SHORT, **options})


def counted(classifier, rows, candidates):
    """Mean per-class accuracy of a classifier's predictions."""
    predictions = classifier.predict(DATASET.features[rows], candidates=candidates)
    labels = DATASET.labels[rows]
    return np.mean([np.mean(predictions[labels == c] == c) for c in np.unique(labels)])


def test_results_are_those_of_the_saved_classifier(task, tmp_path):
    split = SPLITS[task]
    results = run(config(task, **SHORT), DATASET, split, run_dir=tmp_path)
    assert tuple(results) == METHODS
    classifier = MCFAClassifier.load(tmp_path / "classifier.pt")
    assert classifier.class_names_ == NAMES
    for method, result in results.items():
        classifier.set_params(method=method)
        assert (result.dataset, result.split, result.method) == ("small", "10/2", method)
        assert result.note == ""
        assert result.accuracy == pytest.approx(counted(classifier, split.test_unseen, UNSEEN))
        if task == "gzsl":
            seen = counted(classifier, split.test_seen, CLASSES)
            unseen = counted(classifier, split.test_unseen, CLASSES)
            outcome = result.generalized
            assert (outcome.seen, outcome.unseen) == pytest.approx((seen, unseen))
            assert outcome.harmonic == pytest.approx(harmonic_mean(seen, unseen))


def test_files(task, tmp_path):
    settings = config(task, **SHORT)
    results = run(settings, DATASET, SPLITS[task], run_dir=tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["config"] == settings.model_dump(mode="json")
    assert content["validation"] is None
    for method, result in results.items():
        stored = content["results"][method]
        wanted = result.to_dict()
        if task == "gzsl":
            curve = wanted["generalized"].pop("curve")
            with open(tmp_path / f"curve_{method}.csv", newline="") as file:
                header, first, *rows = csv.reader(file)
            assert header == ["calibration_from", "seen", "unseen"]
            assert float(first[0]) == -np.inf
            values = np.array(rows, dtype=float)
            assert values[:, 0].tolist() == curve["breakpoints"]
            assert values[:, 1].tolist() == curve["seen"][1:]
            assert values[:, 2].tolist() == curve["unseen"][1:]
        assert stored == json.loads(json.dumps(wanted))
    expected = {"classifier.pt", "results.json", "config.json", "checkpoint.pt", "metrics.csv"}
    assert expected <= {path.name for path in tmp_path.iterdir()}


def weights_of(folder):
    state = read_checkpoint(folder / "classifier.pt")["heads"]
    return {
        **{f"model.{name}": value for name, value in state["model"].items()},
        **{f"softmax.{name}": value for name, value in state["softmax"].items()},
    }


@pytest.mark.parametrize("selection", ["last", "validation"])
def test_test_rows_do_not_influence_training(task, selection, tmp_path):
    """Garbage instead of the test labels and images: bitwise the same weights and choices."""
    split = SPLITS[task]
    rng = np.random.default_rng(0)
    garbled = DATASET.labels.copy(), DATASET.features.copy()
    for rows, classes in ((split.test_seen, SEEN), (split.test_unseen, UNSEEN)):
        garbled[0][rows] = rng.choice(classes, size=len(rows))
        garbled[1][rows] = 100 * rng.normal(size=(len(rows), DATASET.features.shape[1]))
    datasets = {
        "clean": DATASET,
        "garbage": dataclasses.replace(DATASET, labels=garbled[0], features=garbled[1]),
    }
    settings = config(task, selection=selection, **{**SHORT, "epochs": 8})
    results = {
        name: run(settings, dataset, split, run_dir=tmp_path / name)
        for name, dataset in datasets.items()
    }
    clean, garbage = weights_of(tmp_path / "clean"), weights_of(tmp_path / "garbage")
    assert clean.keys() == garbage.keys()
    assert all(torch.equal(clean[name], garbage[name]) for name in clean)
    choices = [
        json.loads((tmp_path / name / "results.json").read_text())["validation"]
        for name in datasets
    ]
    assert choices[0] == choices[1] and (choices[0] is None) == (selection == "last")
    # The garbage did arrive where it may.
    assert results["clean"]["nearest"].accuracy != results["garbage"]["nearest"].accuracy


def test_reference_reports_the_best_test_epoch_and_says_so(task, tmp_path):
    """Its softmax is the first best of those trained for 1, 2, ... epochs, judged on test rows."""
    split = SPLITS[task]
    # Numbers of epochs at which the last is not the best.
    epochs, classifier_epochs = {"zsl": (12, 4), "gzsl": (25, 6)}[task]
    settings = reference(task, **{"epochs": epochs, "classifier_epochs": classifier_epochs})
    results = run(settings, DATASET, split, run_dir=tmp_path)
    images = (DATASET.features[split.train], DATASET.labels[split.train], DATASET.semantics)
    model = Trainer(settings, *images).fit()
    scores, weights = [], []
    for trained in range(1, classifier_epochs + 1):
        model.config = settings.replace(classifier_epochs=trained)
        classifier = MCFAClassifier().fit_from_model(model, *images)
        unseen = counted(classifier, split.test_unseen, None)
        seen = counted(classifier, split.test_seen, None) if task == "gzsl" else 0
        scores.append(harmonic_mean(seen, unseen) if task == "gzsl" else unseen)
        weights.append(classifier.heads_.softmax.linear.weight.detach())
    assert scores[-1] != max(scores)  # else the last epoch would do
    assert results["softmax"].headline == pytest.approx(max(scores))
    kept = weights_of(tmp_path)["softmax.linear.weight"]
    assert torch.equal(kept, weights[int(np.argmax(scores))])

    assert OPTIMISTIC == "optimistic: best test epoch"
    assert results["softmax"].note == OPTIMISTIC and OPTIMISTIC in str(results["softmax"])
    assert results["ensemble"].note == OPTIMISTIC  # the same softmax is a part of it
    assert results["nearest"].note == ""
    stored = json.loads((tmp_path / "results.json").read_text())["results"]
    assert stored["softmax"]["note"] == OPTIMISTIC


def test_validation_is_recorded_and_its_calibration_used(tmp_path):
    settings = config("gzsl", selection="validation", **{**SHORT, "epochs": 8})
    results = run(settings, DATASET, SPLITS["gzsl"], run_dir=tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["config"]["epochs"] == 8
    chosen = content["validation"]
    classifier = MCFAClassifier.load(tmp_path / "classifier.pt")
    for method, result in results.items():
        calibration = classifier.set_params(method=method).effective_calibration
        unit = classifier.heads_.sharpness if method == "ensemble" else 1
        assert result.generalized.calibration == calibration == chosen["calibration"][method] * unit
        assert calibration != 0
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == chosen["epochs"]


def test_digits_are_classified_better_than_by_chance():
    settings = MCFAConfig.paper("zsl", epochs=20, learning_rate=1e-3, classifier_epochs=10)
    results = run(settings, data.load("digits"), "7/3:0")
    assert min(result.accuracy for result in results.values()) > 0.42
    assert [row.count for row in results["softmax"].classes] == [183, 181, 174]


def test_classes_that_a_split_leaves_out_are_never_predicted(task, tmp_path):
    settings = config(task, epochs=1, classifier_epochs=1)
    results = run(settings, data.load("digits"), "5/2:seed=1", run_dir=tmp_path)
    classifier = MCFAClassifier.load(tmp_path / "classifier.pt")
    assert len(classifier.classes_) == (2 if task == "zsl" else 7)
    assert len(results["nearest"].classes) == len(classifier.classes_)


def test_split_must_suit_the_task():
    with pytest.raises(ValueError, match="split: expected generalized=True for task 'gzsl'"):
        run(config("gzsl"), DATASET, SPLITS["zsl"])
    with pytest.raises(data.DatasetError, match="no split 'nowhere'"):
        run(config("zsl"), DATASET, "nowhere")


def test_writes_nothing_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(config("zsl", epochs=1, classifier_epochs=1), DATASET, SPLITS["zsl"])
    assert not list(tmp_path.iterdir())


def test_monitor_sees_what_predict_sees():
    """The test monitor works on encoded images; the classifier encodes them itself."""
    split = SPLITS["zsl"]
    settings = reference("zsl")
    images = (DATASET.features[split.train], DATASET.labels[split.train], DATASET.semantics)
    classifier = MCFAClassifier(config("zsl", **SHORT)).fit(*images)
    latents, _ = encode_images(classifier.heads_.model, DATASET.features[split.test_unseen])
    scores = classifier.heads_.scores(latents, torch.tensor(UNSEEN), "softmax")
    predictions = classifier.predict(DATASET.features[split.test_unseen])
    assert np.array_equal(UNSEEN[scores.argmax(dim=1)], predictions)
    assert settings.selection == "test"


KILLED = {"epochs": 6, "classifier_epochs": 2, "selection": "validation"}


def test_killed_run_resumes_to_the_same(tmp_path):
    """Killed in the validation run, then in the final one; each time in another process."""
    for epochs_before in (3, 1):
        done = subprocess.run(
            [sys.executable, __file__, str(tmp_path / "killed"), str(epochs_before)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (tmp_path / "killed" / "results.json").exists()
    for name in ("killed", "whole"):
        run(config("gzsl", **KILLED), DATASET, SPLITS["gzsl"], run_dir=tmp_path / name)
    killed, whole = weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole")
    assert all(torch.equal(killed[name], whole[name]) for name in whole)
    for name in ("results.json", "curve_softmax.csv", "curve_nearest.csv"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()


def main(run_dir, epochs):
    """Runs until so many epochs are recorded in this process, and then kills it."""
    torch.set_num_threads(1)
    original, finished = RunFolder.finish_epoch, []

    def finish_epoch(self, *arguments):
        original(self, *arguments)
        finished.append(1)
        if len(finished) == epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.finish_epoch = finish_epoch
    run(config("gzsl", **KILLED), DATASET, SPLITS["gzsl"], run_dir=Path(run_dir))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
