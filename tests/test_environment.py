"""What the library says about its installation."""

from __future__ import annotations

import importlib
import sys

import faiss
import torch

from mcfa_fast.environment import environment


def test_versions_and_devices():
    found = environment()
    assert found["PyTorch"].startswith(torch.__version__)
    assert found["devices"].split(", ")[0] == "cpu"
    assert all(isinstance(text, str) and text for text in found.values())


def test_faiss_is_there_missing_or_broken(monkeypatch, tmp_path):
    assert environment()["FAISS"].startswith(faiss.__version__)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert environment()["FAISS"] == "not installed (pip install 'mcfa_fast[index]')"
    monkeypatch.syspath_prepend(tmp_path)
    for cause, told in (
        ("import libgomp_of_another_time", "No module named 'libgomp_of_another_time'"),
        ("raise ImportError('symbol not found')", "symbol not found"),
    ):
        monkeypatch.delitem(sys.modules, "faiss", raising=False)
        (tmp_path / "faiss.py").write_text(cause)
        importlib.invalidate_caches()
        assert environment()["FAISS"] == f"does not load: {told}"
