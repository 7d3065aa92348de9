"""The classifier in scikit-learn's tools."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

import mcfa_fast as mf
from mcfa_fast import data

DIGITS = data.load("digits")
ROWS = DIGITS.split("7/3:0", generalized=False).train[::4]
FEATURES, LABELS, SEMANTICS = DIGITS.features[ROWS], DIGITS.labels[ROWS], DIGITS.semantics
SCORING = mf.model_selection.zero_shot_accuracy
FOLDS = mf.model_selection.ClassKFold(3)


@pytest.fixture(scope="module")
def classifier():
    return mf.ZeroShotClassifier("eszsl").fit(FEATURES, LABELS, SEMANTICS)


def test_folds_hold_out_every_class_once():
    held_out = []
    for train, test in FOLDS.split(FEATURES, LABELS):
        assert not np.intersect1d(LABELS[train], LABELS[test]).size
        assert len(train) + len(test) == len(LABELS)
        held_out += np.unique(LABELS[test]).tolist()
    assert sorted(held_out) == np.unique(LABELS).tolist()
    assert FOLDS.get_n_splits(FEATURES, LABELS) == 3 == FOLDS.get_n_splits()
    assert mf.model_selection.ClassKFold(5).get_n_splits(y=LABELS) == 3  # of 7 classes
    with pytest.raises(ValueError, match="n_splits: expected 2 or more, got 1"):
        mf.model_selection.ClassKFold(1)


def test_cross_validation_of_classes_where_features_follow_from_descriptors():
    generator = np.random.default_rng(0)
    semantics = generator.standard_normal((12, 6))
    labels = np.repeat(np.arange(12), 10)
    features = semantics[labels] @ generator.standard_normal((6, 8))
    scores = cross_val_score(
        mf.ZeroShotClassifier("eszsl"),
        features,
        labels,
        params={"semantics": semantics},
        cv=FOLDS,
        scoring=SCORING,
    )
    assert len(scores) == 3 and scores.min() > 0.6  # chance is 0.25


def test_a_grid_search_over_options_of_the_system():
    search = GridSearchCV(
        mf.ZeroShotClassifier("eszsl"),
        {"system__visual_penalty": [1e-3, 1e3], "system__semantic_penalty": [1.0]},
        cv=FOLDS,
        scoring=SCORING,
    ).fit(FEATURES, LABELS, semantics=SEMANTICS)
    chosen = search.best_params_["system__visual_penalty"]
    assert search.best_estimator_.run_.options.visual_penalty == chosen
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] != scores[1]


def test_parameters_round_trip():
    classifier = mf.ZeroShotClassifier("dual-encoder", task="gzsl")
    params, names = classifier.get_params(), classifier.run_config().names
    assert params["system__epochs"] == names["epochs"]
    assert params["system__nearest__whitening"] == names["nearest.whitening"]
    changed = classifier.set_params(system__epochs=3, system__nearest__whitening=2.0, seed=5)
    run = clone(changed).run_config()
    assert run.options.training.epochs == 3 and run.options.seed == 5
    assert run.heads["nearest"].whitening == 2.0
    with pytest.raises(ValueError, match="epoch: dual-encoder has no such option; similar"):
        classifier.set_params(system__epoch=3)


def test_no_public_attribute_raises(classifier):
    """As tab completion, notebooks and scikit-learn's display ask for all of them."""
    for name in dir(classifier):
        getattr(classifier, name)
    assert "eszsl" in repr(classifier) and "eszsl" in classifier._repr_html_()
    unfitted = mf.ZeroShotClassifier("eszsl")
    names = [name for name in dir(unfitted) if not hasattr(unfitted, name)]
    assert all(name.endswith("_") or name.startswith("effective_") for name in names)


def test_images_that_cannot_be_right_are_warned_of(classifier):
    with pytest.warns(UserWarning, match=r"labels: classes \[0, 1, 2, .* are not among"):
        assert classifier.score(FEATURES, LABELS) == 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert classifier.score(FEATURES, LABELS, candidates=np.unique(LABELS)) > 0.9


@pytest.mark.parametrize("name", ["calibration", "threshold"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(classifier, name, value):
    changed = clone(classifier).set_params(**{name: value})
    changed.fit(FEATURES, LABELS, SEMANTICS)
    with pytest.raises(ValueError, match=f"{name}: expected a finite number, got {value}"):
        changed.predict(FEATURES, reject=True)


def test_descriptors_in_other_units_are_refused(classifier):
    added = clone(classifier).fit(FEATURES, LABELS, SEMANTICS)
    with pytest.raises(ValueError, match="descriptor of 'far': .* expected one on the same scale"):
        added.add_classes(["far"], 1e4 * SEMANTICS[:1])
    assert len(added.class_names_) == len(SEMANTICS)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("nonsense", "device: expected a name such as 'cpu', 'cuda' or 'cuda:1', got 'nonsense'"),
        ("cuda:99", "device: 'cuda:99' is not there; PyTorch .* finds"),
    ],
)
@pytest.mark.parametrize("system", ["eszsl", "mcfa"])
def test_devices_that_are_not_there(system, device, message):
    with pytest.raises(ValueError, match=message):
        mf.ZeroShotClassifier(system, device=device).fit(FEATURES, LABELS, SEMANTICS)


class Frame:
    """As much of a data frame as is looked at."""

    def __init__(self, values, columns):
        self.values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)


def test_columns_of_a_data_frame_must_be_those_of_fit(tmp_path):
    names = [f"pixel {index}" for index in range(FEATURES.shape[1])]
    fitted = mf.ZeroShotClassifier("eszsl").fit(Frame(FEATURES, names), LABELS, SEMANTICS)
    fitted.save(tmp_path / "classifier.pt")
    for classifier in (fitted, mf.ZeroShotClassifier.load(tmp_path / "classifier.pt")):
        assert classifier.feature_names_in_.tolist() == names
        expected = classifier.predict(FEATURES)  # which has no names
        assert np.array_equal(classifier.predict(Frame(FEATURES, names)), expected)
        swapped = [names[1], names[0], *names[2:]]
        with pytest.raises(ValueError, match="where column 0 is 'pixel 0', got 'pixel 1'"):
            classifier.predict(Frame(FEATURES, swapped))
        with pytest.raises(ValueError, match="column 63 is 'pixel 63', got None"):
            classifier.predict_proba(Frame(FEATURES[:, :-1], names[:-1]))
    again = fitted.fit(FEATURES, LABELS, SEMANTICS)
    assert not hasattr(again, "feature_names_in_")
