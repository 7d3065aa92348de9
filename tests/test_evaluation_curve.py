"""The seen-unseen curve against predictions made one calibration at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mcfa_fast.evaluation import harmonic_mean, seen_unseen_curve

CLASSES = np.array([8, 1, 5, 3, 6])  # in no order
SEEN = np.array([1, 3, 8])


def swept(scores, labels, calibration):
    """S and U at one calibration: stack, predict, count class by class."""
    accuracies = {}
    for row, label in zip(scores, labels, strict=True):
        stacked = [s - calibration * (c in SEEN) for s, c in zip(row, CLASSES, strict=True)]
        accuracies.setdefault(label, []).append(CLASSES[int(np.argmax(stacked))] == label)
    means = {label: np.mean(hits) for label, hits in accuracies.items()}
    seen = np.mean([mean for label, mean in means.items() if label in SEEN])
    unseen = np.mean([mean for label, mean in means.items() if label not in SEEN])
    return seen, unseen


def draw(seed, rows=60, grid=None):
    """Scores and labels; on a grid (a power of two, for exact gaps) many gaps are equal."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([CLASSES, rng.choice(CLASSES, size=rows - len(CLASSES))])
    scores = rng.normal(size=(rows, len(CLASSES))) + (labels[:, None] == CLASSES)
    return scores if grid is None else np.round(scores / grid) * grid, labels


@pytest.mark.parametrize("grid", [None, 0.25])
@pytest.mark.parametrize("seed", range(3))
def test_every_point_equals_a_dense_sweep(seed, grid):
    scores, labels = draw(seed, grid=grid)
    curve = seen_unseen_curve(scores, labels, CLASSES, SEEN)
    # Odd steps, so that no calibration meets a gap on the grid.
    for calibration in np.arange(-7.003, 7.0, 0.047):
        point = curve.at(calibration)
        assert (point.seen, point.unseen) == pytest.approx(swept(scores, labels, calibration))
        assert point.harmonic == harmonic_mean(point.seen, point.unseen)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), grid=st.sampled_from([1.0, 0.125, None]))
def test_curve_and_breakpoints_are_exact(seed, grid):
    """Between any two neighbouring gaps of any two columns, the curve is what prediction gives."""
    scores, labels = draw(seed, rows=12, grid=grid)
    curve = seen_unseen_curve(scores, labels, CLASSES, SEEN)
    is_seen = np.isin(CLASSES, SEEN)
    gaps = np.unique(scores[:, is_seen, None] - scores[:, None, ~is_seen])
    between = np.concatenate([[gaps[0] - 1], (gaps[1:] + gaps[:-1]) / 2, [gaps[-1] + 1]])
    between = between[np.abs(between[:, None] - gaps).min(axis=1) > 1e-9]
    points = [swept(scores, labels, calibration) for calibration in between]
    for calibration, point in zip(between, points, strict=True):
        assert curve.at(calibration)[1:3] == pytest.approx(point)
    assert curve.best().harmonic == pytest.approx(max(harmonic_mean(*point) for point in points))
    seen, unseen = np.array(points).T
    trapezoids = np.sum(np.diff(unseen) * (seen[1:] + seen[:-1]) / 2)
    assert curve.area == pytest.approx(trapezoids, abs=1e-12)


def test_best_point_is_reached_by_predicting_with_its_calibration():
    scores, labels = draw(7)
    best = seen_unseen_curve(scores, labels, CLASSES, SEEN).best()
    assert (best.seen, best.unseen) == pytest.approx(swept(scores, labels, best.calibration))


def test_ends_of_the_curve_and_its_monotony():
    curve = seen_unseen_curve(*draw(0), CLASSES, SEEN)
    assert len(curve.seen) == len(curve.unseen) == len(curve.breakpoints) + 1
    assert curve.unseen[0] == 0 and curve.seen[-1] == 0
    assert (np.diff(curve.seen) <= 0).all() and (np.diff(curve.unseen) >= 0).all()
    assert (np.diff(curve.breakpoints) > 0).all()


def test_with_one_class_of_either_kind_the_area_is_the_roc_area():
    """Then the only question is seen or unseen, which the gap of the scores answers."""
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 2)).round(1), rng.integers(2, size=200)
    curve = seen_unseen_curve(scores, labels, [0, 1], [0])
    assert curve.area == pytest.approx(roc_auc_score(labels == 0, scores[:, 0] - scores[:, 1]))


def test_rounding_never_exceeds_one():
    """Right in every row, with numbers of rows whose shares are not exact."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = np.repeat(CLASSES, rng.integers(5, 60, size=len(CLASSES)))
        scores = rng.uniform(size=(len(labels), len(CLASSES))) + 2 * (labels[:, None] == CLASSES)
        curve = seen_unseen_curve(scores, labels, CLASSES, SEEN)
        best = curve.best()
        assert best.seen == pytest.approx(1) and best.unseen == pytest.approx(1)
        assert max(best[1:]) <= 1 and 1 - 1e-12 <= curve.area <= 1
        assert curve.seen.max() <= 1 and curve.unseen.max() <= 1


def test_an_exact_tie_goes_to_the_unseen_class():
    curve = seen_unseen_curve([[0.5, 0.0], [0.5, 0.0]], [0, 1], [0, 1], [0])
    assert curve.at(0.5)[1:3] == (0.0, 1.0)
    assert curve.at(np.nextafter(0.5, 0))[1:3] == (1.0, 0.0)


def test_nothing_ever_right():
    scores = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    curve = seen_unseen_curve(scores, [0, 2], [0, 1, 2, 3], [0, 1])
    assert (len(curve.breakpoints), curve.area) == (0, 0.0)
    assert curve.best() == (0.0, 0.0, 0.0, 0.0)


def test_seen_classes_without_a_column_do_not_matter():
    scores, labels = draw(1)
    wanted = seen_unseen_curve(scores, labels, CLASSES, SEEN)
    curve = seen_unseen_curve(scores, labels, CLASSES, [*SEEN, 77])
    assert np.array_equal(curve.seen, wanted.seen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros((3, 5))}, "scores: expected .N, K. with labels"),
        ({"scores": np.zeros(5)}, "scores: expected .N, K. with labels"),
        ({"scores": np.full((5, 5), np.nan)}, "scores: expected finite"),
        ({"labels": np.array([8, 1, 5, 3, 2])}, "labels: expected only classes .* got 2"),
        ({"labels": np.array([8, 1, 1, 3, 8])}, "labels: expected both seen and unseen"),
        ({"seen_classes": CLASSES}, "classes: expected both seen and unseen"),
    ],
)
def test_rejects(change, message):
    arguments = {
        "scores": np.eye(5),
        "labels": CLASSES,
        "classes": CLASSES,
        "seen_classes": SEEN,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        seen_unseen_curve(**arguments)
