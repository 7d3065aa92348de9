"""Exported files: they compute what the classifier computes, and describe themselves."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.exceptions import NotFittedError
from zero_shot_data import NEW, SEEN, UNSEEN, config, make_images, make_semantics

import mcfa_fast as mf
from mcfa_fast.export import FORMATS, DeployedClassifier
from mcfa_fast.inference import METHODS

NAMES = (*"abcdefghijk", 'ℓ, "quoted"')
IMAGES, LABELS = make_images(SEEN, rows=20)
TEST_IMAGES = make_images(np.arange(NEW), rows=10, seed=9)[0]
CALIBRATION = 0.25

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["zsl", "gzsl"])
def trained(request, one_thread):
    classifier = mf.MCFAClassifier(config(request.param, epochs=3), calibration=CALIBRATION)
    return classifier.fit(IMAGES, LABELS, make_semantics()[:NEW], class_names=NAMES)


@pytest.fixture(params=METHODS)
def classifier(trained, request):
    return trained.set_params(method=request.param)


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """Writes each file once; tests only read it."""
    folder = tmp_path_factory.mktemp("exported")
    written = {}

    def export(method, format):
        path = folder / f"{method}.{format}"
        if path not in written:
            written[path] = mf.export_classifier(trained, path, method=method, format=format)
        return path, written[path]

    return export


@pytest.fixture(params=FORMATS)
def exported(classifier, request, files):
    return files(classifier.method, request.param)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_preset_best(task, format, tmp_path):
    options = mf.MCFAConfig.best(task, epochs=3, latent_features=8, selection="last")
    classifier = mf.MCFAClassifier(options, method="nearest", calibration=CALIBRATION)
    classifier.fit(IMAGES, LABELS, make_semantics()[:NEW])
    path = tmp_path / f"best.{format}"
    mf.export_classifier(classifier, path, format=format)
    scores = mf.load_exported(path).scores(TEST_IMAGES)
    expected = classifier.decision_function(TEST_IMAGES, calibration=CALIBRATION)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 7, 120])
def test_torchscript_file_is_bitwise_the_eager_module(classifier, files, rows):
    path, _ = files(classifier.method, "torchscript")
    module, loaded = DeployedClassifier(classifier), torch.jit.load(path)
    features = torch.from_numpy(TEST_IMAGES[:rows])
    for _ in range(3):  # the first calls of a scripted module profile, later ones are optimised
        assert torch.equal(loaded(features), module(features))
    predictor = mf.load_exported(path)
    assert np.array_equal(predictor.scores(TEST_IMAGES[:rows]), module(features).numpy())


def test_export_file_is_bitwise_the_eager_module(classifier, files):
    path, _ = files(classifier.method, "export")
    module, predictor = DeployedClassifier(classifier), mf.load_exported(path)
    for rows in (1, 2, 120):
        expected = module(torch.from_numpy(TEST_IMAGES[:rows])).numpy()
        assert np.array_equal(predictor.scores(TEST_IMAGES[:rows]), expected)
    with path.open("rb") as file:
        program = torch.export.load(file).module()
    assert np.array_equal(program(torch.from_numpy(TEST_IMAGES)).numpy(), expected)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("scaling", ["unit", "none"])
def test_every_scaling_is_part_of_the_file(tmp_path, scaling, format):
    """The other tests have the default, "minmax"."""
    classifier = mf.MCFAClassifier(config("gzsl", epochs=2, feature_scaling=scaling))
    classifier.fit(IMAGES, LABELS, make_semantics()[:NEW])
    mf.export_classifier(classifier, tmp_path / "file", format=format)
    scores = mf.load_exported(tmp_path / "file").scores(TEST_IMAGES)
    np.testing.assert_allclose(scores, classifier.decision_function(TEST_IMAGES), atol=2e-6)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("method", ["nearest", "ensemble"])
def test_image_prototypes_and_the_ensembles_weight_are_part_of_the_file(tmp_path, method, format):
    options = {"image_prototypes": True, "epochs": 2}
    classifier = mf.MCFAClassifier(config("gzsl", **options), method=method, weight=0.8)
    classifier.fit(IMAGES, LABELS, make_semantics()[:NEW])
    assert len(classifier.heads_.class_vectors()[0]) == NEW + len(SEEN)
    mf.export_classifier(classifier, tmp_path / "file", format=format)
    scores = mf.load_exported(tmp_path / "file").scores(TEST_IMAGES)
    np.testing.assert_allclose(scores, classifier.decision_function(TEST_IMAGES), atol=3e-6)


@pytest.mark.parametrize("rows", [1, 120])
def test_every_format_gives_the_scores_of_the_classifier(classifier, exported, rows):
    predictor = mf.load_exported(exported[0])
    expected = classifier.decision_function(TEST_IMAGES[:rows])
    scores = predictor.scores(TEST_IMAGES[:rows])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    names = [NAMES[index] for index in classifier.predict(TEST_IMAGES[:rows])]
    assert predictor.predict(TEST_IMAGES[:rows]).tolist() == names
    assert predictor.class_names == tuple(NAMES[index] for index in classifier.classes_)


def test_rows_are_independent_of_the_chunk_they_are_in(exported):
    predictor = mf.load_exported(exported[0])
    many = np.tile(TEST_IMAGES, (150, 1))  # 18,000 rows: three chunks
    scores = predictor.scores(many)
    np.testing.assert_allclose(scores, np.tile(predictor.scores(TEST_IMAGES), (150, 1)), atol=1e-6)


def test_kinds_of_input_give_the_same(exported, tmp_path):
    predictor = mf.load_exported(exported[0])
    images = TEST_IMAGES.astype(np.float16)
    expected = predictor.scores(images.astype(np.float32))
    np.save(tmp_path / "features.npy", images)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    for kind in (images, mapped, torch.tensor(images), images.tolist(), images.astype(np.float64)):
        np.testing.assert_array_equal(predictor.scores(kind), expected)


def test_metadata_describes_the_classifier(classifier, exported):
    path, written = exported
    metadata = mf.load_exported(path).metadata
    assert metadata == written
    assert metadata.class_indices == tuple(classifier.classes_.tolist())
    assert metadata.seen == tuple(index in SEEN for index in classifier.classes_)
    assert (metadata.method, metadata.calibration) == (classifier.method, CALIBRATION)
    assert (metadata.features, metadata.latent_features) == (IMAGES.shape[1], 8)
    assert (metadata.library, metadata.torch) == (mf.__version__, torch.__version__)


def test_calibration_that_validation_chose_is_in_the_file(tmp_path):
    options = {"epochs": 2, "selection": "validation"}
    classifier = mf.MCFAClassifier(config("gzsl", **options), method="nearest")
    classifier.fit(IMAGES, LABELS, make_semantics()[:NEW])
    chosen = classifier.validation_.calibration["nearest"]
    assert mf.export_classifier(classifier, tmp_path / "file").calibration == chosen != 0
    np.testing.assert_allclose(
        mf.load_exported(tmp_path / "file").scores(TEST_IMAGES),
        classifier.decision_function(TEST_IMAGES),
        atol=2e-6,
    )


def test_method_argument_leaves_the_classifier_as_it_was(trained, tmp_path):
    trained.set_params(method="softmax")
    assert mf.export_classifier(trained, tmp_path / "f", method="nearest").method == "nearest"
    assert trained.method == "softmax"


def test_added_class_is_exported(tmp_path):
    classifier = mf.MCFAClassifier(config("gzsl", epochs=2))
    classifier.fit(IMAGES, LABELS, make_semantics()[:NEW], class_names=NAMES)
    classifier.add_classes(["new"], make_semantics()[NEW:])
    mf.export_classifier(classifier, tmp_path / "file", method="nearest")
    predictor = mf.load_exported(tmp_path / "file")
    assert predictor.class_names[-1] == "new" and predictor.scores(TEST_IMAGES).shape[1] == NEW + 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.pt", "constants.pkl"), ("a.pt2", "models/model.json"), ("a", "constants.pkl")],
)
def test_suffix_chooses_the_format(trained, tmp_path, name, kind):
    mf.export_classifier(trained, tmp_path / name)
    with zipfile.ZipFile(tmp_path / name) as archive:
        assert any(record.endswith(kind) for record in archive.namelist())


def test_onnx_file_is_a_valid_model_with_a_free_number_of_rows(classifier, files):
    path, metadata = files(classifier.method, "onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["mcfa_fast.json"]) == metadata.model_dump(mode="json")
    session = onnxruntime.InferenceSession(path)
    for rows in (0, 1, 33):
        (scores,) = session.run(None, {"features": TEST_IMAGES[:rows]})
        assert scores.shape == (rows, len(metadata.class_names))


@pytest.mark.parametrize("trained", ["gzsl"], indirect=True)
def test_torchscript_runs_without_this_library(trained, tmp_path):
    """In a process that cannot import mcfa_fast, and so has no operators of it."""
    mf.export_classifier(trained, tmp_path / "a.pt", method="nearest")
    np.save(tmp_path / "features.npy", TEST_IMAGES)
    code = """
import json, sys
sys.modules["mcfa_fast"] = None
import numpy, torch
torch.set_num_threads(1)
extra = {"mcfa_fast.json": ""}
module = torch.jit.load(sys.argv[1], _extra_files=extra)
scores = module(torch.from_numpy(numpy.load(sys.argv[2])))
names = json.loads(extra["mcfa_fast.json"])["class_names"]
assert names == module.class_names
print(json.dumps([names[k] for k in scores.argmax(dim=1).tolist()]))
"""
    arguments = [tmp_path / "a.pt", tmp_path / "features.npy"]
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    expected = [NAMES[index] for index in trained.set_params(method="nearest").predict(TEST_IMAGES)]
    assert json.loads(result.stdout) == expected


def test_huge_and_tiny_latents_have_cosines_too(trained):
    """Norms that float32 cannot hold; as in LatentIndex."""
    module = DeployedClassifier(trained.set_params(method="nearest", calibration=0.0))
    latents = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    expected = module.head(latents)
    for factor in (1e30, 1e-30):
        torch.testing.assert_close(module.head(latents * factor), expected, atol=1e-6, rtol=0)
    assert (module.head(torch.zeros(1, 8)) == 0).all()
    trained.set_params(calibration=CALIBRATION)


def test_wrong_width_is_an_error_of_the_module_itself(classifier, files):
    path, _ = files(classifier.method, "torchscript")
    for module in (DeployedClassifier(classifier), torch.jit.load(path)):
        for shape in ((3, 5), (12,), (1, 3, 12)):
            with pytest.raises(Exception, match=r"features: expected \[N, 12\]"):
                module(torch.zeros(shape))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (IMAGES[:, 1:], "features: expected 12 columns, got 11"),
        (IMAGES[0], r"features: expected shape \[N, F\]"),
        (np.full((2, 12), np.nan), "features: NaN or infinity in row 0"),
        (IMAGES.astype(str), "features: expected float"),
    ],
)
def test_predictor_rejects(exported, features, message):
    predictor = mf.load_exported(exported[0])
    with pytest.raises(ValueError, match=message):
        predictor.scores(features)


def test_export_rejects(trained, tmp_path):
    with pytest.raises(ValueError, match=r"format: expected one of .* got 'pickle'"):
        mf.export_classifier(trained, tmp_path / "a", format="pickle")
    with pytest.raises(ValueError, match=r"method: expected one of .* got 'forest'"):
        mf.export_classifier(trained, tmp_path / "a", method="forest")
    with pytest.raises(NotFittedError):
        mf.export_classifier(mf.MCFAClassifier(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_that_computes_something_else_is_not_exported(trained, tmp_path, monkeypatch):
    """As one of a later kind of nearest class might."""
    scores = mf.MCFAClassifier.decision_function
    monkeypatch.setattr(
        mf.MCFAClassifier, "decision_function", lambda self, features: scores(self, features) * 1.01
    )
    with pytest.raises(ValueError, match="it does not compute what would be deployed"):
        mf.export_classifier(trained, tmp_path / "a", method="nearest")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_onnx_without_its_packages_says_what_to_install(trained, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'mcfa_fast\[onnx\]'"):
        mf.export_classifier(trained, tmp_path / "a.onnx")


@pytest.mark.parametrize("trained", ["zsl"], indirect=True)
def test_unseen_columns_of_a_zsl_softmax_are_not_calibrated(trained, tmp_path):
    metadata = mf.export_classifier(trained, tmp_path / "a", method="softmax")
    assert metadata.class_indices == tuple(UNSEEN.tolist()) and not any(metadata.seen)
    sums = np.exp(mf.load_exported(tmp_path / "a").scores(TEST_IMAGES)).sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-6)
