"""Class descriptors from sentences."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_model import describe, save_sentence_model

from mcfa_fast import _extras
from mcfa_fast.encoders.sentences import SentenceEncoder

pytestmark = pytest.mark.usefixtures("one_thread")

AID = Path(__file__).resolve().parents[2] / "shared" / "data" / "aid"
MINILM = os.environ.get("MCFA_FAST_MINILM")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    save_sentence_model(folder, 5)
    return folder


@pytest.mark.parametrize(
    "sentences",
    [["a loop"], ["a loop top", "line"], ["line line bottom", "a", "a top"]],
)
def test_descriptor_is_the_normalised_mean_of_unit_vectors(folder, sentences):
    descriptor = SentenceEncoder(folder).describe(sentences)
    assert descriptor.dtype == np.float32
    np.testing.assert_allclose(descriptor, describe(sentences, 5), atol=1e-6)


@pytest.mark.parametrize(
    ("sentences", "error", "message"),
    [
        ("a loop", TypeError, "sentences: expected a list of strings"),
        ([1], TypeError, "sentences: expected a list of strings"),
        ([], ValueError, "sentences: expected one or more non-empty"),
        (["a", " "], ValueError, "sentences: expected one or more non-empty"),
        (["loop", "against"], ValueError, "cancel out"),
    ],
)
def test_bad_sentences(folder, sentences, error, message):
    with pytest.raises(error, match=message):
        SentenceEncoder(folder).describe(sentences)


def test_absent_and_damaged_models(folder, tmp_path):
    with pytest.raises(ValueError, match="no such folder of a sentence encoder"):
        SentenceEncoder(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"expected a sentence-transformers model: no modules"):
        SentenceEncoder(tmp_path)
    (tmp_path / "modules.json").write_text("[]]")
    with pytest.raises(ValueError, match="cannot be loaded as a sentence encoder"):
        SentenceEncoder(tmp_path)


OFFLINE = """
from mcfa_fast.encoders.sentences import SentenceEncoder
print(SentenceEncoder("someone/copied").describe(["a loop"]).tolist())
for name in ("someone/absent", "absent", "no/such/folder"):
    try:
        SentenceEncoder(name)
    except ValueError as error:
        print(error)
"""


def test_without_the_hub_a_copy_is_taken_or_the_error_comes_at_once(folder, tmp_path):
    copy = tmp_path / "hub" / "models--someone--copied"
    shutil.copytree(folder, copy / "snapshots" / ("0" * 40))
    (copy / "refs").mkdir()
    (copy / "refs" / "main").write_text("0" * 40)
    # Nobody listens at this port: the hub's own loader would try again for a minute.
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    descriptor, *errors = ran.stdout.splitlines()
    np.testing.assert_allclose(json.loads(descriptor), describe(["a loop"], 5), atol=1e-6)
    names = ("someone/absent", "sentence-transformers/absent", "no/such/folder")
    for error, name in zip(errors, names, strict=True):
        assert error.startswith(f"{name}: neither a folder nor copied from the Hugging Face hub")
    assert "Retrying" not in ran.stdout + ran.stderr


def test_a_model_with_code_of_its_own_is_not_run(tmp_path):
    (tmp_path / "own_module.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'run')!r}).touch()\nclass Own: pass\n"
    )
    modules = [{"idx": 0, "name": "0", "path": "", "type": "own_module.Own"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="cannot be loaded as a sentence encoder"):
        SentenceEncoder(tmp_path)
    assert not (tmp_path / "run").exists()


def test_without_the_package_the_message_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(_extras, "find_spec", lambda name: None)
    message = r"a sentence encoder: sentence_transformers .* pip install 'mcfa_fast\[text\]'"
    with pytest.raises(_extras.MissingExtraError, match=message):
        SentenceEncoder(folder)


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        ("import tokenizers_of_another_time", "ModuleNotFoundError: No module named 'tokenizers_o"),
        ("raise RuntimeError('built for\\nanother torch')", "RuntimeError: built for"),
    ],
)
def test_a_package_that_does_not_import_says_why(folder, monkeypatch, tmp_path, cause, told):
    (tmp_path / "sentence_transformers.py").write_text(cause)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sentence_transformers")
    with pytest.raises(ImportError, match="is installed but does not import: " + told) as caught:
        SentenceEncoder(folder)
    assert "pip install" not in str(caught.value)


@pytest.mark.skipif(
    MINILM is None or not AID.is_dir(),
    reason="needs ../shared/data/aid, and MCFA_FAST_MINILM=FOLDER with all-MiniLM-L6-v2",
)
def test_minilm_gives_the_text_descriptors_of_aid():
    encoder = SentenceEncoder(MINILM)
    names = json.loads((AID / "class_names.json").read_text())
    sentences = json.loads((AID / "class_sentences.json").read_text())
    stored = np.load(AID / "semantics.npz")["text"]
    made = np.stack([encoder.describe(sentences[name]) for name in names])
    np.testing.assert_allclose(made, stored, atol=1e-6)
