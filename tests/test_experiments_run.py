"""Whole runs: their results, their files, and what may not influence them."""

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
from experiment_data import CLASSES, DATASET, NAMES, SPLIT, garbled, learned, split_of
from zero_shot_data import UNSEEN, config

from mcfa_fast import data
from mcfa_fast.classifiers import RunConfig, ZeroShotClassifier
from mcfa_fast.evaluation import ResultWarning, harmonic_mean
from mcfa_fast.experiments.run import OPTIMISTIC, run
from mcfa_fast.training.run_folder import RunFolder

HEADS = ("softmax", "nearest", "ensemble")
# Few enough epochs for imperfect results, so that the numbers can tell mistakes.
SHORT = {"epochs": 25, "softmax.epochs": 4}


pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::mcfa_fast.evaluation.ResultWarning"),
]


@pytest.fixture(params=["zsl", "gzsl"])
def task(request):
    return request.param


def counted(classifier, rows, candidates):
    """Mean per-class accuracy of a classifier's predictions."""
    predictions = classifier.predict(DATASET.features[rows], candidates=candidates)
    labels = DATASET.labels[rows]
    return np.mean([np.mean(predictions[labels == c] == c) for c in np.unique(labels)])


def test_results_are_those_of_the_saved_classifier(task, tmp_path):
    split = split_of(task)
    results = run(config(task, **SHORT), DATASET, split, run_dir=tmp_path)
    assert tuple(results) == HEADS
    saved = ZeroShotClassifier.load(tmp_path / "classifier.pt")
    assert saved.class_names_ == NAMES
    for head, result in results.items():
        classifier = saved.with_head(head)
        assert (result.dataset, result.split, result.head) == ("small", SPLIT, head)
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
    results = run(settings, DATASET, SPLIT, run_dir=tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["run"] == settings.model_dump(mode="json")
    assert RunConfig.model_validate_json((tmp_path / "run.json").read_text()) == settings
    assert content["selection"] is None
    for head, result in results.items():
        stored = content["results"][head]
        wanted = result.to_dict()
        if task == "gzsl":
            curve = wanted["generalized"].pop("curve")
            with open(tmp_path / f"curve_{head}.csv", newline="") as file:
                header, first, *rows = csv.reader(file)
            assert header == ["calibration_from", "seen", "unseen"]
            assert float(first[0]) == -np.inf
            values = np.array(rows, dtype=float)
            assert values[:, 0].tolist() == curve["breakpoints"]
            assert values[:, 1].tolist() == curve["seen"][1:]
            assert values[:, 2].tolist() == curve["unseen"][1:]
        assert stored == json.loads(json.dumps(wanted))
    expected = {"classifier.pt", "results.json", "training.json", "checkpoint.pt", "metrics.csv"}
    assert expected <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("rule", ["none", "grid"])
def test_test_rows_do_not_influence_training(task, rule, tmp_path):
    """Garbage instead of the test labels and images: bitwise the same weights and choices."""
    settings = config(task, selection=rule, **{**SHORT, "epochs": 12})
    results = {
        name: run(settings, dataset, SPLIT, run_dir=tmp_path / name)
        for name, dataset in {"clean": DATASET, "garbage": garbled(task)}.items()
    }
    clean, garbage = learned(tmp_path / "clean"), learned(tmp_path / "garbage")
    assert clean.keys() == garbage.keys()
    assert all(torch.equal(clean[name], garbage[name]) for name in clean)
    choices = [
        json.loads((tmp_path / name / "results.json").read_text())["selection"] for name in results
    ]
    assert choices[0] == choices[1] and (choices[0] is None) == (rule == "none")
    # The garbage did arrive where it may.
    assert results["clean"]["nearest"].accuracy != results["garbage"]["nearest"].accuracy


def test_reference_reports_the_best_test_epoch_and_says_so(task, tmp_path):
    """Its softmax is the first best of those trained for 1, 2, ... epochs, judged on test rows."""
    split = split_of(task)
    # Numbers of epochs at which the last is not the best.
    epochs, softmax_epochs = {"zsl": (12, 4), "gzsl": (25, 6)}[task]
    settings = config(task, epochs=epochs, **{"softmax.epochs": softmax_epochs})
    reference = settings.model_copy(update={"preset": "reference"}).replace({"selection": "test"})
    results = run(reference, DATASET, split, run_dir=tmp_path)
    images = (DATASET.features[split.train], DATASET.labels[split.train], DATASET.semantics)
    system = ZeroShotClassifier.load(tmp_path / "classifier.pt").system_
    scores, weights = [], []
    for trained in range(1, softmax_epochs + 1):
        classifier = ZeroShotClassifier(settings.replace({"softmax.epochs": trained}))
        classifier.fit_heads(system, *images)
        unseen = counted(classifier, split.test_unseen, None)
        seen = counted(classifier, split.test_seen, None) if task == "gzsl" else 0
        scores.append(harmonic_mean(seen, unseen) if task == "gzsl" else unseen)
        weights.append(classifier.heads_["softmax"].layer.linear.weight.detach())
    assert scores[-1] != max(scores)  # else the last epoch would do
    assert results["softmax"].headline == pytest.approx(max(scores))
    kept = learned(tmp_path)["heads.softmax.layer.linear.weight"]
    assert torch.equal(kept, weights[int(np.argmax(scores))])

    assert OPTIMISTIC == "optimistic: best test epoch"
    assert results["softmax"].note == OPTIMISTIC and OPTIMISTIC in str(results["softmax"])
    assert results["ensemble"].note == OPTIMISTIC  # the same softmax is a part of it
    assert results["nearest"].note == ""
    stored = json.loads((tmp_path / "results.json").read_text())["results"]
    assert stored["softmax"]["note"] == OPTIMISTIC


def test_selection_is_recorded_and_its_calibration_used(tmp_path):
    settings = config("gzsl", selection="grid", **{**SHORT, "epochs": 12})
    results = run(settings, DATASET, SPLIT, run_dir=tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    chosen = content["selection"]
    assert chosen["setting"]["epochs"] in (10, 12)
    assert content["run"]["options"]["training"]["epochs"] == chosen["setting"]["epochs"]
    classifier = ZeroShotClassifier.load(tmp_path / "classifier.pt")
    for head, result in results.items():
        view = classifier.with_head(head)
        calibration = view.effective_calibration
        wanted = chosen["calibration"][head] * view.head_.calibration_unit
        assert result.generalized.calibration == calibration == wanted != 0
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == chosen["setting"]["epochs"]


def test_fixed_options_are_not_chosen(tmp_path):
    settings = config("zsl", selection="grid", epochs=12, **{"softmax.epochs": 1})
    run(settings, DATASET, SPLIT, fixed={"epochs": 12}, run_dir=tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["selection"]["setting"] == {}
    assert content["run"]["options"]["training"]["epochs"] == 12


def test_other_heads_and_selection_in_the_same_folder_do_not_train_again(tmp_path, monkeypatch):
    settings = config("gzsl", head="softmax", **SHORT)
    first = run(settings, DATASET, SPLIT, run_dir=tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(RunFolder, "finish_epoch", lambda *_: pytest.fail("it trains"))
    changes = {"softmax.epochs": 1, "nearest.whitening": 0.5, "selection": "calibration"}
    again = run(settings, DATASET, SPLIT, run_dir=tmp_path)
    assert {h: r.to_dict() for h, r in again.items()} == {h: r.to_dict() for h, r in first.items()}
    other = run(
        settings.replace(changes).with_arguments(head="nearest"),
        DATASET,
        SPLIT,
        run_dir=tmp_path,
    )
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert other["softmax"].to_dict() != first["softmax"].to_dict()
    assert other["nearest"].generalized.calibration != 0 == first["nearest"].generalized.calibration
    stored = RunConfig.model_validate_json((tmp_path / "run.json").read_text())
    assert (stored.head, stored.heads["nearest"].whitening) == ("nearest", 0.5)
    with pytest.raises(ValueError, match=r"different run \(config.*kl_weight was 0.01 and is 0.5"):
        run(settings.replace({"kl_weight": 0.5}), DATASET, SPLIT, run_dir=tmp_path)


def test_digits_are_classified_better_than_by_chance():
    results = run(RunConfig.of("dual-encoder"), data.load("digits"), "7/3:0")
    assert results["nearest"].accuracy > results["nearest"].chance + 0.05
    assert [row.count for row in results["nearest"].classes] == [183, 181, 174]


def test_results_no_better_than_chance_are_warned_of():
    labels = DATASET.labels.copy()
    of_unseen = np.isin(labels, UNSEEN)
    labels[of_unseen] = UNSEEN.sum() - labels[of_unseen]  # each is called the other
    wrong = dataclasses.replace(DATASET, labels=labels)
    with pytest.warns(ResultWarning, match="eszsl, scores: ZSL is .* no better than guessing"):
        run(RunConfig.of("eszsl"), wrong, SPLIT)


def test_classes_that_a_split_leaves_out_are_never_predicted(task, tmp_path):
    settings = RunConfig.of("eszsl", task=task)
    results = run(settings, data.load("digits"), "5/2:seed=1", run_dir=tmp_path)
    classifier = ZeroShotClassifier.load(tmp_path / "classifier.pt")
    assert len(classifier.classes_) == (2 if task == "zsl" else 7)
    assert len(results["scores"].classes) == len(classifier.classes_)


def test_split_must_suit_the_task():
    with pytest.raises(ValueError, match="split: expected generalized=True for task 'gzsl'"):
        run(config("gzsl"), DATASET, split_of("zsl"))
    with pytest.raises(data.DatasetError, match="no split 'nowhere'"):
        run(config("zsl"), DATASET, "nowhere")


def test_writes_nothing_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(config("zsl", epochs=1, **{"softmax.epochs": 1}), DATASET, SPLIT)
    assert not list(tmp_path.iterdir())


KILLED = {"epochs": 6, "softmax.epochs": 2, "selection": "calibration"}


def test_killed_run_resumes_to_the_same(tmp_path):
    """Killed twice in its training; each time in another process."""
    for epochs_before in (3, 1):
        done = subprocess.run(
            [sys.executable, __file__, str(tmp_path / "killed"), str(epochs_before)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (tmp_path / "killed" / "results.json").exists()
    for name in ("killed", "whole"):
        run(config("gzsl", **KILLED), DATASET, SPLIT, run_dir=tmp_path / name)
    killed, whole = learned(tmp_path / "killed"), learned(tmp_path / "whole")
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
    run(config("gzsl", **KILLED), DATASET, SPLIT, run_dir=Path(run_dir))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))


def test_the_folder_of_a_closed_form_is_not_that_of_another_run(tmp_path):
    digits = data.load("digits")
    run(RunConfig.of("eszsl"), digits, "7/3:0", run_dir=tmp_path)
    before = (tmp_path / "classifier.pt").read_bytes()
    other = RunConfig.of("eszsl", options={"visual_penalty": 3.0})
    with pytest.raises(ValueError, match=r"different run \(config.visual_penalty was 1.0 and is 3"):
        run(other, digits, "7/3:0", run_dir=tmp_path)
    assert (tmp_path / "classifier.pt").read_bytes() == before
