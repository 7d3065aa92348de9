"""Fitted classifiers over whole sets: what they choose, keep and report, and what cannot leak."""

import dataclasses
import json

import numpy as np
import pytest
from experiment_data import DATASET, garbled, split_of

from mcfa_fast.classifiers import RunConfig, ZeroShotClassifier
from mcfa_fast.classifiers.transductive import log_posteriors
from mcfa_fast.classifiers.transductive_choice import STRENGTHS
from mcfa_fast.classifiers.transductive_inputs import Labelled, TransductionConfig
from mcfa_fast.evaluation import evaluate
from mcfa_fast.experiments import Comparison, Contestant, plan
from mcfa_fast.experiments.report import comparison_tables
from mcfa_fast.experiments.run import run
from mcfa_fast.experiments.table import rows_of

pytestmark = pytest.mark.usefixtures("one_thread")
TASKS = ["zsl", "gzsl"]


def images_of(rows, dataset=DATASET):
    return dataset.features[rows], dataset.labels[rows]


def fitted(task, dataset=DATASET, system="ridge", **options):
    split = split_of(task)
    classifier = ZeroShotClassifier(
        system, task=task, options={"selection.transductive": True, **options}
    )
    return classifier.fit(
        *images_of(split.train, dataset), dataset.semantics, class_names=dataset.class_names
    )



@pytest.mark.parametrize("task", TASKS)
def test_refines_the_scores_with_the_chosen_strengths(task):
    classifier, split = fitted(task), split_of(task)
    train = images_of(split.train)
    test = DATASET.features[np.concatenate([split.test_seen, split.test_unseen])]
    together = classifier.transductive(*train)
    chosen = classifier.selection_.transduction["scores"]
    assert together.is_chosen and together.config == TransductionConfig(**chosen.setting)
    assert chosen.setting.keys() == STRENGTHS.keys() and 0 <= chosen.score <= 1
    expected = log_posteriors(
        classifier.decision_function(test),
        test,
        together.config,
        labelled=Labelled.of(*train),
        classes=classifier.classes_,
        groups=np.isin(classifier.classes_, classifier.seen_classes_),
    )
    np.testing.assert_allclose(together.decision_function(test), expected, rtol=1e-4, atol=1e-4)
    predictions = classifier.classes_[expected.argmax(axis=1)]
    assert np.array_equal(together.predict(test), predictions)
    np.testing.assert_allclose(together.predict_proba(test).sum(axis=1), 1, rtol=1e-5)
    some = [classifier.class_names_[c] for c in classifier.unseen_classes_]
    assert set(together.predict(test, candidates=some)) <= set(classifier.unseen_classes_)


def test_without_a_choice_the_defaults_are_taken():
    classifier = fitted("zsl", **{"selection.transductive": False})
    together = classifier.transductive()
    assert not together.is_chosen and together.config == TransductionConfig()
    own = TransductionConfig(rounds=0)
    assert classifier.transductive(config=own).config is own
    with pytest.raises(ValueError, match="expected both or neither"):
        classifier.transductive(DATASET.features)
    with pytest.raises(ValueError, match="labelled: expected features of"):
        classifier.transductive(np.ones((2, 3)), [0, 1])


@pytest.mark.parametrize("task", TASKS)
def test_test_labels_change_nothing_and_test_images_no_choice(task):
    """Garbage labels: the same bits. Garbage images: other answers, but the same choices."""
    split = split_of(task)
    garbage = garbled(task)
    labels_only = dataclasses.replace(garbage, features=DATASET.features)
    found = []
    for dataset in (DATASET, labels_only, garbage):
        classifier = fitted(task, dataset)
        together = classifier.transductive(*images_of(split.train, dataset))
        rows = np.concatenate([split.test_seen, split.test_unseen])
        found.append((classifier.selection_, together.decision_function(dataset.features[rows])))
    (selection, clean), (other, relabelled), (third, noisy) = found
    assert selection == other == third
    assert np.array_equal(clean, relabelled)
    assert not np.array_equal(clean, noisy)


@pytest.mark.parametrize("task", TASKS)
def test_saved_and_loaded_it_answers_the_same(task, tmp_path):
    classifier, split = fitted(task), split_of(task)
    train, test = images_of(split.train), DATASET.features[split.test_unseen]
    classifier.save(tmp_path / "c.pt")
    loaded = ZeroShotClassifier.load(tmp_path / "c.pt")
    assert loaded.selection_ == classifier.selection_
    assert np.array_equal(
        loaded.transductive(*train).decision_function(test),
        classifier.transductive(*train).decision_function(test),
    )


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_says_its_mode_and_takes_unseen_images_alone_for_zsl(task):
    classifier, split = fitted(task), split_of(task)
    together = classifier.transductive(*images_of(split.train))
    result = evaluate(together, DATASET, split)
    assert result.mode == "transductive" and "scores transductive: ZSL" in str(result)
    assert evaluate(classifier, DATASET, split).mode == "inductive"
    images, labels = images_of(split.test_unseen)
    assert result.accuracy == together.score(images, labels, candidates=split.unseen_classes)


@pytest.mark.parametrize("task", TASKS)
def test_a_run_keeps_both_results_apart_and_so_do_tables(task, tmp_path):
    config = RunConfig.of("ridge", task=task, options={"selection.transductive": True})
    inductive = run(config, DATASET, split_of(task), run_dir=tmp_path / "run")
    content = json.loads((tmp_path / "run" / "results.json").read_bytes())
    assert content["results"]["scores"]["mode"] == "inductive"
    assert content["transductive"]["scores"]["mode"] == "transductive"
    assert inductive["scores"].mode == "inductive"

    jobs = [
        plan([Contestant("ridge", "paper")], ["7/3:0"], [task], [0], transductive=transductive)[0]
        for transductive in (False, True)
    ]
    work = Comparison("digits", None, None, tmp_path / "runs")
    assert work.run_folder(jobs[0]) != work.run_folder(jobs[1])
    rows = [work(job)[0] for job in jobs]
    assert "transduction" in rows[1]["chosen"] and "transduction" not in rows[0]["chosen"]
    results = [
        dataclasses.make_dataclass("Result", ["job", "rows", "seconds"])(job, [row], 1.0)
        for job, row in zip(jobs, rows, strict=True)
    ]
    tables = comparison_tables(rows_of(results))
    assert [table.title.split(":")[0] for table in tables] == [
        f"{task.upper()} 7/3",
        f"{task.upper()} 7/3, transductive",
    ]
