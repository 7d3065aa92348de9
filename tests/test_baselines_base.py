"""What every baseline has from the base class."""

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from zero_shot_data import NEW, SEEN, UNSEEN, make_images, make_semantics

from mcfa_fast import baselines, data
from mcfa_fast.baselines import Baseline
from mcfa_fast.systems.preparation_old import FeaturePreparation
from mcfa_fast.data.splits import Split
from mcfa_fast.evaluation import evaluate
from mcfa_fast.studies import METHODS

SEMANTICS = make_semantics()[:NEW]
NAMES = tuple("abcdefghijkl")
IMAGES, LABELS = make_images(SEEN, rows=20)
TEST = make_images(np.arange(NEW), rows=10, seed=9)


pytestmark = pytest.mark.usefixtures("one_thread")


# Those trained by gradients have tests of their own.
@pytest.fixture(params=[n for n, m in METHODS.items() if m.group in ("closed-form", "linear")])
def method(request):
    return METHODS[request.param]


def fit(estimator, **options):
    return estimator(**options).fit(IMAGES, LABELS, SEMANTICS, class_names=NAMES)


class Distance(Baseline):
    """Scores that are easy to compute by hand: minus the distance to a multiple of the mean."""

    method = "distance"

    def __init__(self, *, factor=1.0, task="zsl", calibration=None):
        self.factor = factor
        self.task = task
        self.calibration = calibration

    def _fit(self, data):
        self.given_ = data

    def _scores(self, x, s):
        return -np.abs(x.sum(axis=1)[:, None] - self.factor * s.sum(axis=1))


def test_features_and_descriptors_are_prepared():
    baseline = fit(Distance)
    unit = IMAGES.astype(float) / np.linalg.norm(IMAGES.astype(float), axis=1)[:, None]
    x, y, s = baseline.given_
    np.testing.assert_allclose(x, unit - unit.mean(axis=0), atol=1e-14)
    assert np.array_equal(y, LABELS) and x.dtype == s.dtype == np.float64
    table = SEMANTICS.astype(float)
    np.testing.assert_allclose(s, (table / np.linalg.norm(table, axis=1)[:, None])[SEEN])
    test = TEST[0].astype(float)
    prepared = test / np.linalg.norm(test, axis=1)[:, None] - unit.mean(axis=0)
    scores = -np.abs(prepared.sum(axis=1)[:, None] - baseline.semantics_[UNSEEN].sum(axis=1))
    np.testing.assert_allclose(baseline.decision_function(TEST[0]), scores, atol=1e-12)


def test_rows_of_zeros_and_chunks_do_no_harm(monkeypatch):
    images = IMAGES.copy()
    images[3] = 0
    whole = Distance().fit(images, LABELS, SEMANTICS)
    assert np.isfinite(whole.given_.features).all()
    monkeypatch.setattr("mcfa_fast.systems.preparation_old.ROWS_PER_CHUNK", 7)
    monkeypatch.setattr("mcfa_fast.systems.baseline_old.ROWS_PER_CHUNK", 7)
    chunked = Distance().fit(images, LABELS, SEMANTICS)
    assert np.array_equal(chunked.given_.features, whole.given_.features)
    assert np.array_equal(chunked.decision_function(TEST[0]), whole.decision_function(TEST[0]))


def test_preparation_accumulates_half_precision_in_full(tmp_path):
    images = IMAGES.astype(np.float16)
    np.save(tmp_path / "features.npy", images)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    _, wanted = FeaturePreparation.fit(images.astype(np.float64), np.float64)
    _, got = FeaturePreparation.fit(mapped, np.float64)
    assert np.array_equal(got, wanted)


def test_classes_may_have_gaps_and_names(method):
    spread = np.zeros((2 * NEW, SEMANTICS.shape[1]), np.float32)
    spread[::2] = SEMANTICS
    plain = fit(method.estimator)
    gaps = method.estimator().fit(IMAGES, 2 * LABELS, spread, unseen_classes=2 * UNSEEN)
    assert gaps.classes_.tolist() == (2 * UNSEEN).tolist()
    assert gaps.seen_classes_.tolist() == (2 * SEEN).tolist()
    wanted = plain.decision_function(TEST[0], candidates=["l", "d"])
    np.testing.assert_array_equal(gaps.decision_function(TEST[0], candidates=[22, 6]), wanted)
    with pytest.raises(ValueError, match="neither a seen nor an unseen class"):
        gaps.predict(TEST[0], candidates=[1, 6])


def test_solves_a_problem(method):
    """Features are a noisy linear view of binary attributes, so that every method can."""
    rng = np.random.default_rng(0)
    table = (rng.random((44, 10)) > 0.5).astype(np.float32)
    labels = np.repeat(np.arange(44), 12)
    view = rng.normal(size=(10, 20))
    images = table[labels] @ view + 0.5 * rng.normal(size=(len(labels), 20))
    seen = labels < 40
    chosen = {"penalty": 0.1} if "penalty" in method.grid else {}
    baseline = method.estimator(**chosen).fit(images[seen], labels[seen], table)
    assert baseline.score(images[~seen], labels[~seen]) > 0.95
    assert baseline.score(images[seen], labels[seen], candidates=range(44)) > 0.7
    predictions = baseline.predict(images, candidates=range(44))
    assert baseline.score(images, labels, candidates=range(44)) == pytest.approx(
        np.mean([np.mean(predictions[labels == c] == c) for c in range(44)])
    )


def test_task_decides_the_classes(method):
    assert np.array_equal(fit(method.estimator).classes_, UNSEEN)
    baseline = fit(method.estimator, task="gzsl")
    assert np.array_equal(baseline.classes_, np.arange(NEW))
    assert baseline.decision_function(TEST[0]).shape == (len(TEST[0]), NEW)


def test_calibration_is_subtracted_from_seen_classes(method):
    baseline = fit(method.estimator, task="gzsl")
    raw = baseline.decision_function(TEST[0])
    assert raw.dtype == np.float64 and baseline.effective_calibration == 0
    baseline.set_params(calibration=0.3)
    wanted = raw - 0.3 * np.isin(np.arange(NEW), SEEN)
    assert np.array_equal(baseline.decision_function(TEST[0]), wanted)
    assert np.array_equal(baseline.decision_function(TEST[0], calibration=0.0), raw)
    baseline.set_params(calibration=1e9)
    assert set(baseline.predict(TEST[0])) <= set(UNSEEN.tolist())


def test_a_path_is_the_same_as_single_fits(method):
    """In both orders: what settings share must not depend on the setting before."""
    settings = method.settings[:: max(1, len(method.settings) // 5)]
    for grid in (settings, settings[::-1]):
        path = method.estimator().fit_path(IMAGES, LABELS, SEMANTICS, grid)
        scores = method.estimator().score_path(
            IMAGES, LABELS, SEMANTICS, grid, images=TEST[0], candidates=UNSEEN
        )
        for setting, fitted, scored in zip(grid, path, scores, strict=True):
            wanted = fit(method.estimator, **setting).decision_function(TEST[0])
            assert np.array_equal(fitted.decision_function(TEST[0]), wanted)
            assert np.array_equal(scored, wanted)


def test_settings_make_a_difference(method):
    scores = {
        fitted.decision_function(TEST[0]).tobytes()
        for fitted in method.estimator().fit_path(IMAGES, LABELS, SEMANTICS, method.settings)
    }
    assert len(scores) >= len(method.settings) / 2


def test_descriptors_of_unseen_classes_do_not_train(method):
    other = SEMANTICS.copy()
    other[UNSEEN] = np.random.default_rng(0).random((2, SEMANTICS.shape[1]))
    baseline = method.estimator().fit(IMAGES, LABELS, other)
    wanted = fit(method.estimator).decision_function(TEST[0], candidates=SEEN)
    assert np.array_equal(baseline.decision_function(TEST[0], candidates=SEEN), wanted)
    assert not np.array_equal(
        baseline.decision_function(TEST[0]), fit(method.estimator).decision_function(TEST[0])
    )


def test_more_attributes_than_classes_and_constant_features(method):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(NEW, 50))
    images = np.column_stack([IMAGES, np.zeros(len(IMAGES)), np.zeros(len(IMAGES))])
    baseline = method.estimator().fit(images, LABELS, table)
    assert np.isfinite(baseline.decision_function(images, candidates=range(NEW))).all()


def test_evaluate_takes_a_baseline(method):
    features = np.concatenate([IMAGES, TEST[0]])
    dataset = data.Dataset("small", features, np.concatenate([LABELS, TEST[1]]), NAMES, SEMANTICS)
    rows = np.arange(len(IMAGES), len(features))
    seen = np.isin(dataset.labels[rows], SEEN)
    split = Split("10/2", True, SEEN, UNSEEN, np.arange(len(IMAGES)), rows[seen], rows[~seen])
    baseline = fit(method.estimator, task="gzsl", calibration=0.1)
    result = evaluate(baseline, dataset, split)
    assert result.method == baseline.method
    assert result.generalized.calibration == 0.1
    assert result.generalized.seen == pytest.approx(baseline.score(TEST[0][seen], TEST[1][seen]))


def test_manners_of_scikit_learn(method):
    baseline = fit(method.estimator, task="gzsl", calibration=0.2)
    copy = clone(baseline)
    assert copy.get_params() == baseline.get_params()
    assert is_classifier(copy) and baseline.n_features_in_ == IMAGES.shape[1]
    for use in (
        lambda: copy.predict(IMAGES),
        lambda: copy.decision_function(IMAGES),
        lambda: copy.classes_,
        lambda: copy.n_features_in_,
        lambda: copy.effective_calibration,
    ):
        with pytest.raises(NotFittedError):
            use()
    assert set(method.grid) <= set(copy.get_params())


def test_kinds_of_input(method):
    tensors = torch.tensor(IMAGES), torch.tensor(LABELS), torch.tensor(SEMANTICS)
    baseline = method.estimator().fit(*tensors)
    wanted = fit(method.estimator).decision_function(TEST[0])
    assert np.array_equal(baseline.decision_function(torch.tensor(TEST[0])), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": IMAGES[:, 0]}, r"features: expected shape \[N, F\]"),
        ({"labels": LABELS[:-1]}, "labels: expected shape"),
        ({"labels": np.arange(200) % 12}, "every class has training rows"),
        ({"semantics": SEMANTICS[0]}, "semantics: expected shape"),
        ({"class_names": NAMES[1:]}, "class_names: expected 12, one per class, got 11"),
        ({"unseen_classes": [3, 11]}, "unseen_classes: class 3 has training rows"),
    ],
)
def test_fit_rejects(change, message):
    arguments = {"features": IMAGES, "labels": LABELS, "semantics": SEMANTICS, **change}
    with pytest.raises(ValueError, match=message):
        baselines.Ridge().fit(**arguments)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (baselines.Ridge(task="few-shot"), r"task: expected one of .* got 'few-shot'"),
        (baselines.Ridge(penalty=0), "penalty: expected a number above 0, got 0"),
        (baselines.ESZSL(visual_penalty=-1), "visual_penalty: expected a number above 0, got -1"),
        (baselines.ESZSL(semantic_penalty=0), "semantic_penalty: expected a number above 0"),
        (baselines.SAE(penalty=float("nan")), "penalty: expected a number above 0, got nan"),
        (baselines.SAE(direction="both"), r"direction: expected one of .* got 'both'"),
        (baselines.ConSE(top=0), "top: expected a number above 0, got 0"),
        (baselines.DAP(penalty=0), "penalty: expected a number above 0"),
        (baselines.IAP(penalty=0), "penalty: expected a number above 0"),
        (baselines.SynC(width=0), "width: expected a number above 0"),
    ],
)
def test_rejects_hyperparameters(baseline, message):
    with pytest.raises(ValueError, match=message):
        baseline.fit(IMAGES, LABELS, SEMANTICS)


@pytest.mark.parametrize("estimator", [baselines.DAP, baselines.IAP, baselines.SynC])
def test_rejects_seen_classes_of_one_descriptor(estimator):
    table = SEMANTICS.copy()
    table[SEEN] = table[0]
    with pytest.raises(ValueError, match="semantics: expected different descriptors"):
        estimator().fit(IMAGES, LABELS, table)


def test_prediction_rejects_other_features():
    with pytest.raises(ValueError, match="features: expected 12 columns, got 11"):
        fit(baselines.Ridge).predict(IMAGES[:, 1:])
