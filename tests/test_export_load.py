"""Reading exported files: whatever else lies there is refused, and never run."""

import json
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

import mcfa_fast as mf
from mcfa_fast.export import FORMATS
from mcfa_fast.export.export import onnx_trailer

KEY = "mcfa_fast.json"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def classifier(one_thread):
    classifier = mf.MCFAClassifier(
        config("gzsl", epochs=1, head="nearest", **{"softmax.epochs": 1})
    )
    return classifier.fit(*make_images(SEEN, rows=20), make_semantics()[:NEW])


@pytest.fixture(scope="module")
def contents(classifier, tmp_path_factory):
    """The bytes of a file of every format."""
    folder = tmp_path_factory.mktemp("exported")
    for format in FORMATS:
        mf.export_classifier(classifier, folder / format, format=format)
    return {format: (folder / format).read_bytes() for format in FORMATS}


@pytest.fixture
def refused(tmp_path):
    """Expects an error that names the file and says why."""

    def refuse(content, message):
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            mf.load_exported(path)
        assert str(path) in str(caught.value)

    return refuse


@pytest.fixture
def scores_of(tmp_path):
    """The scores of some images, by a file of this content."""

    def scores(content):
        (tmp_path / "scored").write_bytes(content)
        return mf.load_exported(tmp_path / "scored").scores(make_images(SEEN, rows=1)[0])

    return scores


@pytest.fixture
def rewritten(contents, tmp_path):
    """A copy of an archive with some records changed, added or (None) left out."""

    def rewrite(format, changes):
        (tmp_path / "source").write_bytes(contents[format])
        with (
            zipfile.ZipFile(tmp_path / "source") as source,
            zipfile.ZipFile(tmp_path / "copy", "w") as copy,
        ):
            records = {name: source.read(name) for name in source.namelist()}
            top = next(iter(records)).partition("/")[0]
            for name, change in changes.items():
                old = records.get(f"{top}/{name}")
                new = change(old) if callable(change) else change
                records[f"{top}/{name}"] = new
            for name, content in records.items():
                if content is not None:
                    copy.writestr(name, content)
        return (tmp_path / "copy").read_bytes()

    return rewrite


def edit(**fields):
    """Changes top-level fields of a JSON record."""
    return lambda text: json.dumps(json.loads(text) | fields).encode()


def resealed(content, old, new):
    """An ONNX file with other bytes inside and a digest that fits."""
    body = content[: -len(onnx_trailer(b""))]
    assert old in body and len(old) == len(new)
    body = body.replace(old, new)
    return body + onnx_trailer(body)


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        mf.load_exported(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK nothing", bytes(1000)])
def test_foreign_files(refused, content):
    refused(content, "expected a file written by mcfa_fast's export|damaged")


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_and_damaged_files(contents, refused, scores_of, format):
    whole = contents[format]
    for length in (10, len(whole) // 2, len(whole) - 1):
        refused(whole[:length], "damaged|expected a file written by")
    expected = scores_of(whole)
    accepted = 0
    for position in range(200, len(whole) - 200, len(whole) // 20):
        flipped = bytearray(whole)
        flipped[position] ^= 0x10
        try:
            scores = scores_of(bytes(flipped))
        except ValueError:
            continue
        # A bit of padding, or of a field of the ZIP format that nobody reads.
        assert np.array_equal(scores, expected)
        accepted += 1
    assert accepted < 10


def test_other_archives_and_models(tmp_path, refused, classifier):
    torch.jit.script(torch.nn.Linear(3, 2)).save(tmp_path / "a")
    refused((tmp_path / "a").read_bytes(), f"with {KEY} in it")
    classifier.save(tmp_path / "b")
    refused((tmp_path / "b").read_bytes(), f"with {KEY} in it")
    np.savez(tmp_path / "c.npz", a=np.zeros(3))
    refused((tmp_path / "c.npz").read_bytes(), f"with {KEY} in it")


@pytest.mark.parametrize("format", ["torchscript", "export"])
def test_archives_of_other_versions_and_with_bad_metadata(refused, rewritten, format):
    extra = f"extra/{KEY}"
    newer = rewritten(format, {extra: edit(format_version=3, library="9.0")})
    refused(newer, r"written by mcfa_fast 9\.0 in version 3 of the format; .* reads version 2")
    older = rewritten(format, {extra: edit(format_version=1)})
    refused(older, r"in version 1 of the format; .* reads version 2: export the run again")
    refused(rewritten(format, {extra: None}), f"with {KEY} in it")
    refused(rewritten(format, {extra: b"{"}), f"with {KEY} in it")
    refused(rewritten(format, {extra: edit(format="other")}), f"with {KEY} in it")
    refused(rewritten(format, {extra: edit(features=0)}), "is damaged: features")
    refused(rewritten(format, {extra: edit(head="")}), "is damaged: head")
    refused(rewritten(format, {extra: edit(task="other")}), "is damaged: task")
    refused(rewritten(format, {extra: edit(features=True)}), "is damaged: features")
    refused(rewritten(format, {extra: edit(class_names=["a"])}), "differ in length")


def test_onnx_of_another_version_and_resealed_nonsense(contents, refused):
    content = contents["onnx"]
    key = b'"format_version":2'
    refused(resealed(content, key, b'"format_version":3'), "in version 3 of the format")
    refused(resealed(content, b"mcfa_fast.json", b"mcfa_slow.json"), f"with {KEY} in it")
    refused(resealed(content, b"Gemm", b"Gemn"), "damaged")
    body = b"no protobuf"
    refused(body + onnx_trailer(body), "damaged")


def test_onnx_without_its_runtime_says_what_to_install(contents, tmp_path, monkeypatch):
    (tmp_path / "a.onnx").write_bytes(contents["onnx"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'mcfa_fast\[onnx\]'"):
        mf.load_exported(tmp_path / "a.onnx")


# Archives of torch.export that PyTorch's reader would run code from


def attack(tmp_path):
    return f"__import__('pathlib').Path({str(tmp_path / 'run')!r}).touch()"


def set_expression(expression):
    def change(text):
        assert b"Symbol(" in text
        program = json.loads(text)
        for tensor in program["graph_module"]["graph"]["tensor_values"].values():
            for size in tensor["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = expression
        return json.dumps(program).encode()

    return change


def set_target(target):
    def change(text):
        program = json.loads(text)
        program["graph_module"]["graph"]["nodes"][0]["target"] = target
        return json.dumps(program).encode()

    return change


def set_container(kind):
    def change(text):
        program = json.loads(text)
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = signature["in_spec"].replace("builtins.tuple", kind)
        return json.dumps(program).encode()

    return change


def rename_input(name):
    return lambda text: text.replace(b'"features"', json.dumps(name).encode())


MODEL = "models/model.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data/weights/model.pt": b"pickle"}, "holds 'archive/data/weights/model.pt'"),
        ({"data/constants/opaque_obj_0": b"pickle"}, "opaque_obj_0"),
        ({"data/sample_inputs/model.pt": b"pickle"}, "holds pickled objects"),
        (
            {
                "data/weights/model_weights_config.json": lambda text: text.replace(
                    b'"use_pickle": false', b'"use_pickle":true'
                )
            },
            "holds pickled objects",
        ),
        (
            {"data/constants/model_constants_config.json": b'{"config": {"a": {}}}'},
            "holds constants",
        ),
        ({"models/other.json": b"{}"}, "models/other.json"),
        ({MODEL: edit(guards_code=["print()"])}, "has guards_code"),
        ({MODEL: set_target("torch.ops.aten.from_file.default")}, "has target"),
        ({MODEL: set_target("os.system")}, "has target"),
        ({MODEL: set_container("collections.defaultdict")}, "has in_spec"),
        ({MODEL: rename_input("a, b=print()")}, "has name 'a, b=print"),
    ],
)
def test_archives_that_could_run_code(refused, rewritten, changes, message):
    refused(rewritten("export", changes), message)


def test_an_expression_is_refused_that_pytorch_would_run(rewritten, tmp_path, refused):
    content = rewritten("export", {MODEL: set_expression(attack(tmp_path))})
    refused(content, "has expr_str")
    assert not (tmp_path / "run").exists()
    # The attack is a real one: without the check, reading the file runs it.
    with (tmp_path / "copy").open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.export.load(file)
        except Exception:
            pass
    assert (tmp_path / "run").exists()


def test_a_rewritten_archive_is_read_where_nothing_is_wrong_with_it(rewritten, contents, scores_of):
    """So that what the tests above change is why their files are refused."""
    for format in ("torchscript", "export"):
        assert np.array_equal(scores_of(rewritten(format, {})), scores_of(contents[format]))
