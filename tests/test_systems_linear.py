"""Baselines over linear classifiers, against scikit-learn's and sums over explicit classes."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from systems_helpers import fit_system
from systems_helpers import scores as scores_of

from mcfa_fast.systems.attributes import BinaryAttributes
from mcfa_fast.systems.linear import fit_linear
from mcfa_fast.systems.spectrum import Spectrum

RNG = np.random.default_rng(0)
CLASSES, SEEN, ATTRIBUTES = 9, 6, 5
LABELS = RNG.permutation(np.repeat(np.arange(SEEN), 25))
# Directions of very different lengths, as centred features of a network have.
FEATURES = (RNG.normal(size=(SEEN, 10))[LABELS] + RNG.normal(size=(150, 10))) * np.logspace(
    0, -2, 10
)
SEMANTICS = RNG.normal(size=(CLASSES, ATTRIBUTES)).astype(np.float32)
TEST = RNG.normal(size=(12, 10)) * np.logspace(0, -2, 10)
# Which systems read.
FEATURES, TEST = (rows.astype(np.float32).astype(np.float64) for rows in (FEATURES, TEST))


pytestmark = pytest.mark.usefixtures("one_thread")


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


X = unit(FEATURES) - unit(FEATURES).mean(axis=0)
X_TEST = unit(TEST) - unit(FEATURES).mean(axis=0)
S = unit(SEMANTICS.astype(float))
ONE_HOT = np.eye(SEEN)[LABELS]


def fit(name, **options):
    return fit_system(name, (FEATURES, LABELS), SEMANTICS, **options)


def scores(system):
    return scores_of(system, TEST, SEMANTICS)


def probabilities(penalty):
    """Of scikit-learn's logistic regression among the seen classes."""
    exact = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=100_000)
    return exact.fit(X, LABELS).predict_proba(X_TEST)


# The classifiers themselves


@pytest.mark.parametrize("penalty", [1e-2, 1.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_softmax_is_logistic_regression(penalty, dtype):
    linear = fit_linear(
        Spectrum.of(X.astype(dtype)), ONE_HOT, loss="softmax", penalty=penalty, tolerance=1e-6
    )
    other = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=100_000).fit(X, LABELS)
    np.testing.assert_allclose(linear.weights, other.coef_.T, atol=2e-3 * np.abs(other.coef_).max())
    wanted = np.log(other.predict_proba(X_TEST))
    got = linear(X_TEST)
    gaps = (got - got.mean(axis=1, keepdims=True)) - (wanted - wanted.mean(axis=1, keepdims=True))
    assert np.abs(gaps).max() < 2e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_logistic_is_one_regression_per_column(penalty):
    signs = np.where(np.arange(1, 5) & (np.arange(SEEN)[:, None] + 1) > 0, 1.0, -1.0)[LABELS]
    linear = fit_linear(Spectrum.of(X), signs, loss="logistic", penalty=penalty, tolerance=1e-7)
    for column in range(4):
        other = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=100_000)
        other.fit(X, signs[:, column])
        scale = np.abs(other.coef_).max()
        np.testing.assert_allclose(linear.weights[:, column], other.coef_[0], atol=1e-4 * scale)
        np.testing.assert_allclose(
            linear.intercepts[column], other.intercept_[0], atol=1e-4 * scale
        )


@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_squared_hinge_is_a_support_vector_machine_per_column(penalty):
    linear = fit_linear(
        Spectrum.of(X),
        2 * ONE_HOT - 1,
        loss="squared_hinge",
        penalty=penalty,
        intercept=False,
        tolerance=1e-7,
    )
    other = LinearSVC(C=1 / penalty, fit_intercept=False, dual=False, tol=1e-10, max_iter=100_000)
    other.fit(X, LABELS)
    np.testing.assert_allclose(linear.weights, other.coef_.T, atol=1e-4 * np.abs(other.coef_).max())
    assert not linear.intercepts.any()


def test_default_tolerance_is_close_to_the_minimum():
    spectrum = Spectrum.of(X)
    for loss in ("softmax", "logistic", "squared_hinge"):
        targets = ONE_HOT if loss == "softmax" else 2 * ONE_HOT - 1
        rough = fit_linear(spectrum, targets, loss=loss, penalty=0.1)(X_TEST)
        exact = fit_linear(spectrum, targets, loss=loss, penalty=0.1, tolerance=1e-8)(X_TEST)
        assert np.abs(rough - exact).max() < 0.02 * np.abs(exact).max()


# ConSE


@pytest.mark.parametrize("top", [1, 3, SEEN, 100])
def test_conse_combines_the_likeliest_classes(top):
    wanted = np.zeros((len(TEST), CLASSES))
    for row, p in enumerate(probabilities(0.1)):
        likeliest = sorted(range(SEEN), key=lambda c: -p[c])[:top]
        combined = sum(p[c] * S[c] for c in likeliest) / sum(p[c] for c in likeliest)
        for c in range(CLASSES):
            wanted[row, c] = combined @ S[c] / np.linalg.norm(combined)
    np.testing.assert_allclose(scores(fit("conse", penalty=0.1, top=top)), wanted, atol=3e-3)


# DAP and IAP


def attributes():
    """Binary attributes of all classes and their priors, by counting."""
    threshold = [sum(SEMANTICS[:SEEN, m]) / SEEN for m in range(ATTRIBUTES)]
    table = np.array(
        [[SEMANTICS[c, m] > threshold[m] for m in range(ATTRIBUTES)] for c in range(CLASSES)]
    )
    return table, table[:SEEN].mean(axis=0)


def product_scores(has):
    """log Π_m p(a_m^c | x) / p(a_m^c) [N, C] for p(a_m = 1 | x) [N, M]."""
    table, prior = attributes()
    result = np.zeros((len(has), CLASSES))
    for c in range(CLASSES):
        for m in range(ATTRIBUTES):
            posterior = has[:, m] if table[c, m] else 1 - has[:, m]
            result[:, c] += np.log(posterior / (prior[m] if table[c, m] else 1 - prior[m]))
    return result


def assert_same_up_to_rows(got, wanted, atol):
    """Scores may differ by a term that all classes of a row share."""
    np.testing.assert_allclose(got - got[:, :1], wanted - wanted[:, :1], atol=atol)


def test_dap_multiplies_attribute_probabilities():
    table, _ = attributes()
    has = np.zeros((len(TEST), ATTRIBUTES))
    for m in range(ATTRIBUTES):
        exact = LogisticRegression(C=10, tol=1e-10, max_iter=100_000)
        has[:, m] = exact.fit(X, table[LABELS, m]).predict_proba(X_TEST)[:, 1]
    assert_same_up_to_rows(scores(fit("dap", penalty=0.1)), product_scores(has), atol=0.01)


def test_iap_goes_by_way_of_the_seen_classes():
    table, _ = attributes()
    has = np.clip(probabilities(0.1) @ table[:SEEN], 1e-6, 1 - 1e-6)
    assert_same_up_to_rows(scores(fit("iap", penalty=0.1)), product_scores(has), atol=0.02)


def test_iap_keeps_digits_where_a_row_is_nearly_certain():
    """Log-odds of 1 - 1e-6 would lose them if 1 - p were computed in float32."""
    fitted = fit("iap", penalty=1e-5)
    table, _ = attributes()
    logits = X_TEST @ fitted.weights_.astype(float) + fitted.intercepts_
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    has = np.clip(p / p.sum(axis=1, keepdims=True) @ table[:SEEN], 1e-6, 1 - 1e-6)
    assert ((has > 1 - 1e-5) & (has < 1 - 1e-6)).any()
    assert_same_up_to_rows(scores(fitted), product_scores(has), atol=1e-3)


def test_binary_attributes_stay_as_they_are():
    table = np.random.default_rng(1).random((8, 20)) > 0.7
    table[:5, 3], table[:5, 4] = True, False  # shared by all seen classes
    split = BinaryAttributes.of(table[:5].astype(np.float32))
    assert not split.kept[[3, 4]].any()
    assert np.array_equal(split(table.astype(np.float32)), table[:, split.kept])
    np.testing.assert_allclose(split.prior, table[:5, split.kept].mean(axis=0))


def test_a_certain_row_still_tells_unseen_classes_apart():
    fitted = fit("iap", penalty=1e-6)
    assert np.isfinite(scores(fitted)).all()


# SynC


def similarities(s, width):
    weights = np.exp(-cdist(s, S[:SEEN], "sqeuclidean") / width**2)
    return weights / weights.sum(axis=1, keepdims=True)


def test_sync_synthesizes_classifiers():
    fitted = fit("sync", penalty=0.5, width=0.6)
    distances = [np.sum((S[a] - S[b]) ** 2) for a in range(SEEN) for b in range(a)]
    assert fitted.width_ == pytest.approx(0.6 * np.sqrt(np.mean(distances)))
    svm = LinearSVC(C=2, fit_intercept=False, dual=False, tol=1e-10, max_iter=100_000)
    svm.fit(X, LABELS)
    bases = np.linalg.solve(similarities(S[:SEEN], fitted.width_), svm.coef_)
    wanted = X_TEST @ (similarities(S, fitted.width_) @ bases).T
    np.testing.assert_allclose(scores(fitted), wanted, atol=0.01 * np.abs(wanted).max())


def test_sync_bases_minimise_the_objective():
    """Eq. 5 with squared hinges: no step in the phantom classes' classifiers lowers it."""
    fitted = fit("sync", penalty=0.5, width=0.6)
    signs = 2 * ONE_HOT - 1

    def objective(bases):
        w = similarities(S[:SEEN], fitted.width_) @ bases
        return (np.maximum(0, 1 - signs * (X @ w.T)) ** 2).sum() + 0.25 * (w**2).sum()

    lowest = objective(fitted.bases_)
    rng = np.random.default_rng(0)
    for size in (0.03, 0.3):
        for _ in range(20):
            step = size * rng.normal(size=fitted.bases_.shape)
            assert objective(fitted.bases_ + step) > lowest


def test_sync_of_two_classes_with_one_descriptor():
    table = SEMANTICS.copy()
    table[1] = table[0]
    fitted = fit_system("sync", (FEATURES, LABELS), table)
    assert np.isfinite(scores_of(fitted, TEST, table)).all()
    assert np.abs(fitted.bases_).max() < 1e3
