"""Means, deviations and paired differences, computed again by hand."""

import csv
import io
from statistics import mean, stdev

import numpy as np
import pytest
from scipy.stats import t as student

from mcfa_fast.studies import JobResult, comparison_tables, rows_csv, rows_of, to_markdown
from mcfa_fast.experiments.table import differences, spread

RATIO = "20/10"
ACCURACIES = {  # classifier, split: one per seed
    "eszsl": {0: [0.40, 0.42], 1: [0.50, 0.54], 2: [0.61, 0.55]},
    "ridge": {0: [0.30], 1: [0.45], 2: [0.50]},
    "mcfa-paper/softmax": {0: [0.45], 1: [0.57], 2: [0.56]},
}


def results(accuracies=ACCURACIES, task="zsl", ratio=RATIO):
    rows = []
    for name, of_splits in accuracies.items():
        for split, of_seeds in of_splits.items():
            for seed, value in enumerate(of_seeds):
                row = {"classifier": name, "accuracy": value, "chosen": {"penalty": 0.1}}
                if task == "gzsl":
                    row |= {"seen": 0.8, "unseen": value, "harmonic": value / 2, "ausuc": 0.3}
                    row |= {"calibration": 0.25}
                job = {"method": "m", "split": f"{ratio}:{split}", "task": task, "seed": seed}
                rows.append(JobResult(job, [row | {"note": ""}], None, 1.5))
    return rows


def group(name, **options):
    return [row for row in rows_of(results(**options)) if row.classifier == name]


def test_spread_is_over_splits_and_seeds_are_averaged_first():
    found = spread(group("eszsl"), "accuracy")
    values = [0.41, 0.52, 0.58]
    assert found == (pytest.approx(mean(values)), pytest.approx(stdev(values)), 3)


def test_headline_follows_the_task():
    assert spread(group("ridge", task="gzsl"), "headline").mean == pytest.approx(1.25 / 6)
    assert spread(group("ridge"), "headline").mean == pytest.approx(1.25 / 3)


def test_difference_is_paired_and_its_interval_is_students():
    gaps = np.array([0.45 - 0.41, 0.57 - 0.52, 0.56 - 0.58])
    found = differences(group("mcfa-paper/softmax"), group("eszsl"))
    half = student.ppf(0.975, 2) * gaps.std(ddof=1) / np.sqrt(3)
    assert found == (
        pytest.approx(gaps.mean()),
        pytest.approx(gaps.mean() - half),
        pytest.approx(gaps.mean() + half),
        3,
    )
    narrow = differences(group("mcfa-paper/softmax"), group("eszsl"), confidence=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_difference_is_over_common_splits():
    few = {"a": {0: [0.5], 1: [0.7], 4: [0.1]}, "b": {1: [0.4], 0: [0.1], 3: [0.9]}}
    rows = rows_of(results(few))
    ours, theirs = ([row for row in rows if row.classifier == name] for name in "ab")
    found = differences(ours, theirs)
    assert found.splits == 2 and found.mean == pytest.approx((0.4 + 0.3) / 2)
    assert differences(ours[1:], theirs) is None


def test_equal_differences_have_an_interval_of_no_width():
    same = {"a": {0: [0.5], 1: [0.75]}, "b": {0: [0.25], 1: [0.5]}}
    rows = rows_of(results(same))
    assert differences(rows[:2], rows[2:]) == (0.25, 0.25, 0.25, 2)


def test_failed_jobs_have_no_rows():
    failed = JobResult({"method": "m", "split": "s", "task": "zsl", "seed": 0}, [], "oops", 1.0)
    assert rows_of([failed]) == []


def test_csv_has_every_number():
    rows = rows_of(results(task="gzsl"))
    read = list(csv.DictReader(io.StringIO(rows_csv(rows))))
    assert len(read) == len(rows) == 12
    for row, line in zip(rows, read, strict=True):
        assert (line["split"], line["classifier"]) == (row.split, row.classifier)
        for name in ("accuracy", "seen", "unseen", "harmonic", "ausuc", "calibration", "seconds"):
            assert float(line[name]) == getattr(row, name)
        assert line["chosen"] == '{"penalty": 0.1}'
    zsl = list(csv.DictReader(io.StringIO(rows_csv(rows_of(results())))))
    assert zsl[0]["seen"] == zsl[0]["harmonic"] == ""


def test_tables_of_every_task_and_ratio():
    rows = rows_of([*results(), *results(task="gzsl"), *results(ratio="25/5")])
    tables = comparison_tables(rows)
    assert [table.title.split(":")[0] for table in tables] == [
        *["ZSL 20/10"] * 2,
        *["GZSL 20/10"] * 2,
        *["ZSL 25/5"] * 2,
    ]
    means, gaps = tables[:2]
    assert means.columns == ("classifier", "ZSL", "splits")
    assert means.rows[0] == ("eszsl", "50.3 ± 8.6", "3")
    # Against the best baseline, although MCFA is better here.
    assert "less that of eszsl" in gaps.title
    assert [row[0] for row in gaps.rows] == ["ridge", "mcfa-paper/softmax"]
    assert gaps.rows[1][1:] == ("+2.3", "-7.1 to +11.7", "3")
    assert tables[2].columns[1:] == ("S seen", "U unseen", "H", "AUSUC", "splits")
    assert tables[2].rows[1][1:] == (
        "80.0 ± 0.0",
        "41.7 ± 10.4",
        "20.8 ± 5.2",
        "30.0 ± 0.0",
        "3",
    )


def test_tables_against_a_method_of_choice():
    rows = rows_of(results())
    gaps = comparison_tables(rows, against="ridge")[1]
    assert "less that of ridge" in gaps.title and gaps.rows[0][:2] == ("eszsl", "+8.7")
    assert len(comparison_tables(rows, against="sae")) == 1  # no differences to what is not there


def test_one_split_has_no_deviation_and_no_difference():
    rows = rows_of(results({"eszsl": {0: [0.4]}, "ridge": {0: [0.3]}}))
    (means,) = comparison_tables(rows)
    assert means.rows == (("eszsl", "40.0", "1"), ("ridge", "30.0", "1"))


def test_one_method_has_no_difference():
    (means,) = comparison_tables(rows_of(results({"eszsl": ACCURACIES["eszsl"]})))
    assert means.rows == (("eszsl", "50.3 ± 8.6", "3"),)


def test_notes_are_shown():
    done = results({"eszsl": {0: [0.4]}, "mcfa-reference/softmax": {0: [0.5]}})
    done[1].rows[0]["note"] = "optimistic"
    means = comparison_tables(rows_of(done))[0]
    assert means.columns[-1] == "note"
    assert [row[-1] for row in means.rows] == ["", "optimistic"]


def test_markdown_has_every_cell():
    tables = comparison_tables(rows_of(results()))
    text = to_markdown(tables)
    for table in tables:
        assert f"## {table.title}\n" in text
        for row in (table.columns, *table.rows):
            assert "| " + " | ".join(row) + " |\n" in text
