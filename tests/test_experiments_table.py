"""Means, deviations and paired differences, computed again by hand."""

import csv
import io
from statistics import mean, stdev

import numpy as np
import pytest
from scipy.stats import t as student

from mcfa_fast.evaluation import seen_unseen_curve
from mcfa_fast.experiments import JobResult, comparison_tables, rows_csv, rows_of, to_markdown
from mcfa_fast.experiments.report import check_against
from mcfa_fast.experiments.table import chance, differences, spread
from mcfa_fast.systems.registry import find

RATIO = "20/10"
ACCURACIES = {  # label, split: one per seed
    "eszsl": {0: [0.40, 0.42], 1: [0.50, 0.54], 2: [0.61, 0.55]},
    "ridge": {0: [0.30], 1: [0.45], 2: [0.50]},
    "mcfa/softmax": {0: [0.45], 1: [0.57], 2: [0.56]},
}
OPPONENT = {"dual-encoder": ACCURACIES["eszsl"]}


def results(accuracies=ACCURACIES, task="zsl", ratio=RATIO):
    rows = []
    for name, of_splits in accuracies.items():
        for split, of_seeds in of_splits.items():
            for seed, value in enumerate(of_seeds):
                contestant, _, head = name.partition("/")
                system, _, preset = contestant.partition(":")
                job = {"system": system, "preset": preset or next(iter(find(system).presets))}
                job |= {"split": f"{ratio}:{split}", "task": task, "seed": seed}
                row = {"label": name, "head": head or "scores", "accuracy": value}
                row |= {"seen_classes": 20, "unseen_classes": 10, "chosen": {"penalty": 0.1}}
                if task == "gzsl":
                    row |= {"seen": 0.8, "unseen": value, "harmonic": value / 2, "ausuc": 0.3}
                    row |= {"calibration": 0.25}
                rows.append(JobResult(job, [row | {"note": ""}], None, 1.5))
    return rows


def group(name, **options):
    return [row for row in rows_of(results(**options)) if row.label == name]


def test_spread_is_over_splits_and_seeds_are_averaged_first():
    found = spread(group("eszsl"), "accuracy")
    values = [0.41, 0.52, 0.58]
    assert found == (pytest.approx(mean(values)), pytest.approx(stdev(values)), 3)


def test_headline_follows_the_task():
    assert spread(group("ridge", task="gzsl"), "headline").mean == pytest.approx(1.25 / 6)
    assert spread(group("ridge"), "headline").mean == pytest.approx(1.25 / 3)


def test_difference_is_paired_and_its_interval_is_students():
    gaps = np.array([0.45 - 0.41, 0.57 - 0.52, 0.56 - 0.58])
    found = differences(group("mcfa/softmax"), group("eszsl"))
    half = student.ppf(0.975, 2) * gaps.std(ddof=1) / np.sqrt(3)
    assert found == (
        pytest.approx(gaps.mean()),
        pytest.approx(gaps.mean() - half),
        pytest.approx(gaps.mean() + half),
        3,
    )
    narrow = differences(group("mcfa/softmax"), group("eszsl"), confidence=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_difference_is_over_common_splits():
    few = {"sae": {0: [0.5], 1: [0.7], 4: [0.1]}, "ridge": {1: [0.4], 0: [0.1], 3: [0.9]}}
    ours, theirs = (group(name, accuracies=few) for name in few)
    found = differences(ours, theirs)
    assert found.splits == 2 and found.mean == pytest.approx((0.4 + 0.3) / 2)
    assert differences(ours[1:], theirs) is None


def test_equal_differences_have_an_interval_of_no_width():
    same = {"sae": {0: [0.5], 1: [0.75]}, "ridge": {0: [0.25], 1: [0.5]}}
    ours, theirs = (group(name, accuracies=same) for name in same)
    assert differences(ours, theirs) == (0.25, 0.25, 0.25, 2)


def test_failed_jobs_have_no_rows():
    job = {"system": "eszsl", "preset": "paper", "split": "s", "task": "zsl", "seed": 0}
    assert rows_of([JobResult(job, [], "oops", 1.0)]) == []


def test_rows_are_in_the_same_order_whichever_job_ended_first():
    done = [*results(), *results(task="gzsl"), *results(OPPONENT), *results(ratio="3/2")]
    for split in (10, 9):  # not "10" before "9"
        done += results({"mcfa:v0/softmax": {split: [0.5]}})
    wanted = rows_of(done)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(done))
        assert rows_of([done[k] for k in order]) == wanted
    assert [row.task for row in wanted] == sorted((row.task for row in wanted), reverse=True)
    splits = list(dict.fromkeys(row.split for row in wanted))
    assert splits == ["3/2:0", "3/2:1", "3/2:2", *(f"20/10:{k}" for k in (0, 1, 2, 9, 10))]
    first = [row.label for row in wanted if (row.split, row.task) == ("20/10:0", "zsl")]
    # Seed 0 first, and in it the order of the registry.
    assert first == ["dual-encoder", "mcfa/softmax", "eszsl", "ridge", "dual-encoder", "eszsl"]


def test_chance_is_that_of_a_uniform_guess():
    rng = np.random.default_rng(0)
    labels = rng.integers(30, size=20000)
    guesses = rng.integers(30, size=len(labels))
    seen, unseen = (np.mean((guesses == labels)[part]) for part in (labels < 20, labels >= 20))
    rows = rows_of(results(task="gzsl"))
    assert chance(rows, "seen") == chance(rows, "harmonic") == chance(rows, "unseen") == 1 / 30
    assert (seen, unseen) == pytest.approx((1 / 30, 1 / 30), abs=0.01)
    assert chance(rows, "accuracy") == 1 / 10
    scores = rng.random((len(labels), 30))
    curve = seen_unseen_curve(scores, labels, np.arange(30), np.arange(20))
    assert chance(rows, "ausuc") == 1 / 400 == pytest.approx(curve.area, rel=0.1)


def test_csv_has_every_number():
    rows = rows_of(results(task="gzsl"))
    read = list(csv.DictReader(io.StringIO(rows_csv(rows))))
    assert len(read) == len(rows) == 12
    for row, line in zip(rows, read, strict=True):
        for name in ("label", "system", "preset", "head", "task", "split", "note"):
            assert line[name] == getattr(row, name)
        for name in ("accuracy", "seen", "unseen", "harmonic", "ausuc", "calibration", "seconds"):
            assert float(line[name]) == getattr(row, name)
        assert line["chosen"] == '{"penalty": 0.1}'
    zsl = list(csv.DictReader(io.StringIO(rows_csv(rows_of(results())))))
    assert zsl[0]["seen"] == zsl[0]["harmonic"] == ""


def test_tables_of_every_task_and_ratio():
    every = ACCURACIES | OPPONENT
    parts = ({}, {"task": "gzsl"}, {"ratio": "25/5"})
    tables = comparison_tables(rows_of([r for part in parts for r in results(every, **part)]))
    assert [table.title.split(":")[0] for table in tables] == [
        *["ZSL 20/10"] * 2,
        *["ZSL 25/5"] * 2,
        *["GZSL 20/10"] * 2,
    ]
    means, gaps = tables[:2]
    assert means.columns == ("system", "ZSL", "splits")
    assert means.rows[:2] == (("chance", "10.0", "3"), ("dual-encoder", "50.3 ± 8.6", "3"))
    # Against the recommended system, whichever is the best here.
    assert "accuracy less that of dual-encoder" in gaps.title
    assert [row[0] for row in gaps.rows] == ["mcfa/softmax", "eszsl", "ridge"]
    assert gaps.rows[0][1:] == ("+2.3", "-7.1 to +11.7", "3")
    generalized = tables[4]
    assert generalized.columns[1:] == ("S seen", "U unseen", "H", "AUSUC", "splits")
    assert generalized.rows[0] == ("chance", "3.3", "3.3", "3.3", "0.2", "3")
    assert generalized.rows[-1][1:] == (
        "80.0 ± 0.0",
        "41.7 ± 10.4",
        "20.8 ± 5.2",
        "30.0 ± 0.0",
        "3",
    )
    assert "H less that of dual-encoder" in tables[5].title


def test_tables_against_a_system_of_choice():
    rows = rows_of(results())
    gaps = comparison_tables(rows, against="ridge")[1]
    assert "less that of ridge" in gaps.title and gaps.rows[1][:2] == ("eszsl", "+8.7")
    # No differences to what is not there, in place of the best that is.
    assert len(comparison_tables(rows, against="sae")) == len(comparison_tables(rows)) == 1


def test_an_opponent_that_is_not_there_is_refused():
    check_against(None, [])
    check_against("ridge", ["eszsl", "ridge"])
    with pytest.raises(ValueError, match="against: expected one of eszsl, ridge, got 'sae'"):
        check_against("sae", ["eszsl", "ridge", "eszsl"])


def test_one_split_has_no_deviation_and_no_difference():
    few = {"dual-encoder": {0: [0.4]}, "ridge": {0: [0.3]}}
    (means,) = comparison_tables(rows_of(results(few)))
    assert means.rows[1:] == (("dual-encoder", "40.0", "1"), ("ridge", "30.0", "1"))


def test_one_system_has_no_difference():
    (means,) = comparison_tables(rows_of(results(OPPONENT)))
    assert means.rows == (("chance", "10.0", "3"), ("dual-encoder", "50.3 ± 8.6", "3"))


def test_notes_are_shown():
    done = results({"eszsl": {0: [0.4]}, "mcfa:reference/softmax": {0: [0.5]}})
    done[1].rows[0]["note"] = "optimistic"
    means = comparison_tables(rows_of(done))[0]
    assert means.columns[-1] == "note"
    assert [(row[0], row[-1]) for row in means.rows] == [
        ("chance", ""),
        ("mcfa:reference/softmax", "optimistic"),
        ("eszsl", ""),
    ]


def test_markdown_has_every_cell():
    tables = comparison_tables(rows_of(results()))
    text = to_markdown(tables)
    for table in tables:
        assert f"## {table.title}\n" in text
        for row in (table.columns, *table.rows):
            assert "| " + " | ".join(row) + " |\n" in text
