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
from mcfa_fast.export.predictor import TorchPredictor
from mcfa_fast.systems.registry import find

NAMES = (*"abcdefghijk", 'ℓ, "quoted"')
IMAGES, LABELS = make_images(SEEN, rows=20)
TEST_IMAGES = make_images(np.arange(NEW), rows=10, seed=9)[0]
CALIBRATION = 0.25
HEADS = find("mcfa").heads

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["zsl", "gzsl"])
def trained(request, one_thread):
    options = {"epochs": 3, "softmax.epochs": 3}
    classifier = mf.MCFAClassifier(config(request.param, **options), calibration=CALIBRATION)
    return classifier.fit(IMAGES, LABELS, make_semantics()[:NEW], class_names=NAMES)


@pytest.fixture(params=HEADS)
def classifier(trained, request):
    return trained.with_head(request.param)


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """Writes each file once; tests only read it."""
    folder = tmp_path_factory.mktemp("exported")
    written = {}

    def export(head, format):
        path = folder / f"{head}.{format}"
        if path not in written:
            written[path] = mf.export_classifier(trained, path, head=head, format=format)
        return path, written[path]

    return export


@pytest.fixture(params=FORMATS)
def exported(classifier, request, files):
    return files(classifier.head_.name, request.param)


@pytest.mark.parametrize("rows", [1, 2, 7, 120])
def test_torchscript_file_is_bitwise_the_eager_module(classifier, files, rows):
    path, _ = files(classifier.head_.name, "torchscript")
    module, loaded = DeployedClassifier(classifier), torch.jit.load(path)
    features = torch.from_numpy(TEST_IMAGES[:rows])
    for _ in range(3):  # the first calls of a scripted module profile, later ones are optimised
        assert torch.equal(loaded(features), module(features))
    predictor = mf.load_exported(path)
    assert np.array_equal(predictor.scores(TEST_IMAGES[:rows]), module(features).numpy())


def test_export_file_is_bitwise_the_eager_module(classifier, files):
    path, _ = files(classifier.head_.name, "export")
    module, predictor = DeployedClassifier(classifier), mf.load_exported(path)
    for rows in (1, 2, 120):
        expected = module(torch.from_numpy(TEST_IMAGES[:rows])).numpy()
        assert np.array_equal(predictor.scores(TEST_IMAGES[:rows]), expected)
    with path.open("rb") as file:
        program = torch.export.load(file).module()
    assert np.array_equal(program(torch.from_numpy(TEST_IMAGES)).numpy(), expected)


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
    assert (metadata.system, metadata.head) == ("mcfa", classifier.head_.name)
    assert (metadata.task, metadata.calibration) == (classifier.run_.task, CALIBRATION)
    assert (metadata.features, metadata.embedding_features) == (IMAGES.shape[1], 8)
    assert (metadata.library, metadata.torch) == (mf.__version__, torch.__version__)


def test_calibration_that_selection_chose_is_in_the_file(tmp_path):
    classifier = mf.ZeroShotClassifier("eszsl", task="gzsl", options={"selection.folds": 2})
    classifier.fit(IMAGES, LABELS, make_semantics()[:NEW])
    chosen = classifier.selection_.calibration["scores"]
    assert mf.export_classifier(classifier, tmp_path / "file").calibration == chosen != 0
    np.testing.assert_allclose(
        mf.load_exported(tmp_path / "file").scores(TEST_IMAGES),
        classifier.decision_function(TEST_IMAGES),
        atol=2e-6,
    )


def test_head_argument_leaves_the_classifier_as_it_was(trained, tmp_path):
    assert mf.export_classifier(trained, tmp_path / "f", head="nearest").head == "nearest"
    assert trained.head_.name == "softmax"


def test_added_class_is_exported(tmp_path):
    classifier = mf.ZeroShotClassifier("eszsl", task="gzsl", options={"selection": "none"})
    classifier.fit(IMAGES, LABELS, make_semantics()[:NEW], class_names=NAMES)
    classifier.add_classes(["new"], make_semantics()[NEW:])
    mf.export_classifier(classifier, tmp_path / "file")
    predictor = mf.load_exported(tmp_path / "file")
    assert predictor.class_names[-1] == "new"
    np.testing.assert_allclose(
        predictor.scores(TEST_IMAGES), classifier.decision_function(TEST_IMAGES), atol=2e-6
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.pt", "constants.pkl"), ("a.pt2", "models/model.json"), ("a", "constants.pkl")],
)
def test_suffix_chooses_the_format(trained, tmp_path, name, kind):
    mf.export_classifier(trained, tmp_path / name)
    with zipfile.ZipFile(tmp_path / name) as archive:
        assert any(record.endswith(kind) for record in archive.namelist())


def test_onnx_file_is_a_valid_model_with_a_free_number_of_rows(classifier, files):
    path, metadata = files(classifier.head_.name, "onnx")
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
    mf.export_classifier(trained, tmp_path / "a.pt", head="nearest")
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
    expected = [NAMES[index] for index in trained.with_head("nearest").predict(TEST_IMAGES)]
    assert json.loads(result.stdout) == expected


def test_huge_and_tiny_latents_have_cosines_too(trained):
    """Norms that float32 cannot hold; as in LatentIndex."""
    module = DeployedClassifier(trained.with_head("nearest"))
    latents = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    expected = module.head(latents)
    for factor in (1e30, 1e-30):
        torch.testing.assert_close(module.head(latents * factor), expected, atol=1e-6, rtol=0)
    assert (module.head(torch.zeros(1, 8)) == 0).all()


def test_wrong_width_is_an_error_of_the_module_itself(classifier, files):
    path, _ = files(classifier.head_.name, "torchscript")
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
        (IMAGES.astype(str), "features: expected real numbers"),
    ],
)
def test_predictor_rejects(exported, features, message):
    predictor = mf.load_exported(exported[0])
    with pytest.raises(ValueError, match=message):
        predictor.scores(features)


def test_predictor_refuses_scores_that_are_not_finite(trained, tmp_path):
    metadata = mf.export_classifier(trained, tmp_path / "a")

    def module(rows):
        scores = torch.zeros(len(rows), len(metadata.class_names))
        scores[rows[:, 0] > 1e30, 1] = torch.inf
        return scores

    images = np.tile(TEST_IMAGES, (100, 1))
    images[9000, 0] = 2e30
    with pytest.raises(ValueError, match="the scores of row 9000 are not finite"):
        TorchPredictor(metadata, module).scores(images)


def test_export_rejects(trained, tmp_path):
    with pytest.raises(ValueError, match=r"format: expected one of .* got 'pickle'"):
        mf.export_classifier(trained, tmp_path / "a", format="pickle")
    with pytest.raises(ValueError, match=r"head: mcfa has softmax, .* got 'forest'"):
        mf.export_classifier(trained, tmp_path / "a", head="forest")
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
        mf.export_classifier(trained, tmp_path / "a", head="nearest")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_onnx_without_its_packages_says_what_to_install(trained, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'mcfa_fast\[onnx\]'"):
        mf.export_classifier(trained, tmp_path / "a.onnx")


@pytest.mark.parametrize("trained", ["zsl"], indirect=True)
def test_unseen_columns_of_a_zsl_softmax_are_not_calibrated(trained, tmp_path):
    metadata = mf.export_classifier(trained, tmp_path / "a", head="softmax")
    assert metadata.class_indices == tuple(UNSEEN.tolist()) and not any(metadata.seen)
    sums = np.exp(mf.load_exported(tmp_path / "a").scores(TEST_IMAGES)).sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-6)
