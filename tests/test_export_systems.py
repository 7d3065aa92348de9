"""Every system leaves the library with every head, whatever its options."""

import numpy as np
import pytest
import torch
from zero_shot_data import FEATURES, NEW, SEEN, config, make_images, make_semantics

import mcfa_fast as mf
from mcfa_fast.export import FORMATS, DeployedClassifier
from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.registry import SYSTEMS

IMAGES, LABELS = make_images(SEEN, rows=20)
TEST_IMAGES = make_images(np.arange(NEW), rows=10, seed=9)[0]

pytestmark = pytest.mark.usefixtures("one_thread")


def semantics_for(system):
    """Text matching compares descriptors with features themselves, so they are as wide."""
    if system != "text-matching":
        return make_semantics()[:NEW]
    return np.random.default_rng(4).random((NEW, FEATURES)).astype(np.float32)


def fitted(system, task, **options):
    entry = SYSTEMS[system]
    options = {"selection": "none", **options}
    if issubclass(entry.system.Config, TrainableConfig):
        options.setdefault("epochs", 1)
    if "softmax" in entry.heads:
        options.setdefault("softmax.epochs", 1)
    classifier = mf.ZeroShotClassifier(system, task=task, options=options, calibration=0.125)
    return classifier.fit(IMAGES, LABELS, semantics_for(system))


def check(classifier, path, format, head=None):
    head = head or classifier.head_.name
    metadata = mf.export_classifier(classifier, path, format=format, head=head)
    predictor = mf.load_exported(path)
    assert predictor.metadata == metadata
    assert (metadata.system, metadata.head) == (classifier.run_.system, head)
    expected = classifier.with_head(head).decision_function(TEST_IMAGES)
    np.testing.assert_allclose(predictor.scores(TEST_IMAGES), expected, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_and_head(system, task, tmp_path):
    classifier = fitted(system, task)
    for head in classifier.heads_:
        for format in ("torchscript", "export"):
            check(classifier, tmp_path / f"{head}.{format}", format, head)


# One of each kind of score; mcfa's heads are in test_export_export.
@pytest.mark.parametrize("system", ["dual-encoder", "eszsl", "conse", "iap", "latem", "cmt", "sse"])
def test_onnx(system, tmp_path):
    check(fitted(system, "zsl"), tmp_path / "a.onnx", "onnx")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("scaling", ["unit", "none"])
def test_every_scaling_is_part_of_the_file(tmp_path, scaling, format):
    """The other tests have the default, "minmax"."""
    classifier = fitted("mcfa", "gzsl", feature_scaling=scaling)
    check(classifier, tmp_path / "file", format)


NEAREST = {
    "nearest.whitening": 2.0,
    "nearest.prototype_kernel": 0.5,
    "nearest.seen_gain": 3.0,
    "nearest.image_prototypes": True,
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("head", ["nearest", "ensemble"])
def test_options_of_heads_are_part_of_the_file(tmp_path, head, format):
    run = config("gzsl", epochs=1, head=head, **NEAREST, **{"ensemble.weight": 0.8})
    classifier = mf.ZeroShotClassifier(run).fit(IMAGES, LABELS, make_semantics()[:NEW])
    assert len(classifier.heads_["nearest"].index.ids) == NEW + len(SEEN)
    check(classifier, tmp_path / "file", format)
    # Each of them makes a difference.
    scores = mf.load_exported(tmp_path / "file").scores(TEST_IMAGES)
    for option in NEAREST:
        value = {"nearest.seen_gain": 1.0, "nearest.image_prototypes": False}.get(option)
        other = mf.ZeroShotClassifier(run.replace({option: value}))
        other.fit(IMAGES, LABELS, make_semantics()[:NEW])
        assert np.abs(other.decision_function(TEST_IMAGES) - scores).max() > 1e-3


@pytest.mark.parametrize(
    ("system", "method"), [("eszsl", "scorer"), ("dual-encoder", "encoder")]
)
def test_a_system_that_cannot_leave_says_so(system, method, tmp_path):
    classifier = fitted(system, "zsl")
    kind = type(classifier.system_)
    classifier.system_.__class__ = type(kind.__name__, (kind,), {method: None})
    message = rf"system: {system} cannot be exported, it has no {method}\(\)"
    with pytest.raises(ValueError, match=message):
        mf.export_classifier(classifier, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_classifier_is_not_changed_by_its_module():
    """The module holds copies."""
    classifier = fitted("mcfa", "gzsl")
    before = classifier.decision_function(TEST_IMAGES)
    module = DeployedClassifier(classifier)
    for values in [*module.parameters(), *module.buffers()]:
        values.zero_()
    assert np.array_equal(classifier.decision_function(TEST_IMAGES), before)


def with_nan_weights(classifier):
    state = dict(classifier.system_.state_dict())
    state["weights_"] = torch.full_like(state["weights_"], torch.nan)
    classifier.system_.load_state_dict(state)
    return classifier


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_nan_weights, r"row 0 are not finite: eszsl: its trained state \(weights_\)"),
        (lambda one: one.set_params(calibration=np.nan), "calibration: expected a finite number"),
    ],
)
def test_scores_that_are_not_finite_are_not_exported(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        mf.export_classifier(change(fitted("eszsl", "gzsl")), tmp_path / "a")
    assert not (tmp_path / "a").exists()
