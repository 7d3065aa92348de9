"""Reading exported files; whatever is wrong with one, the error names it."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import torch

from mcfa_fast._extras import require
from mcfa_fast.export.archive import check_program
from mcfa_fast.export.export import onnx_trailer
from mcfa_fast.export.metadata import KEY, Metadata
from mcfa_fast.export.predictor import OnnxPredictor, Predictor, TorchPredictor

__all__ = ["load_exported"]


def load_exported(path: str | os.PathLike[str]) -> Predictor:
    """Read what :func:`~mcfa_fast.export.export.export_classifier` wrote, on the CPU.

    The format is found from the content. **A file must come from a source that you trust.** Nothing
    is unpickled and no Python code of it is run, and the operators of a .pt2 are checked; but a .pt
    is a TorchScript program, which may write files and call any operator, and whatever its format,
    a file can waste time and memory or answer wrongly.

    Args:
        path: an exported file of any format.

    Returns:
        A predictor with ``scores``, ``predict``, ``class_names`` and ``metadata``.

    Raises:
        FileNotFoundError: without such a file.
        ImportError: for ONNX without ``pip install mcfa_fast[onnx]``.
        ValueError: when the file is damaged, of another kind, or of another version.

    Example:
        >>> import tempfile
        >>> from mcfa_fast import ZeroShotClassifier, data
        >>> from mcfa_fast.export import export_classifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("eszsl").fit(
        ...     digits.features[rows],
        ...     digits.labels[rows],
        ...     digits.semantics,
        ...     class_names=digits.class_names,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = export_classifier(classifier, f"{folder}/digits.pt")
        ...     predictor = load_exported(f"{folder}/digits.pt")
        >>> predictor.class_names
        ('3', '4', '8')
        >>> predictor.scores(digits.features[:5]).shape
        (5, 3)
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        if content.startswith(b"PK"):
            return _archive(content)
        return _onnx(content)
    except ImportError:
        raise
    except Exception as error:  # damaged files raise many kinds
        text = str(error) if isinstance(error, ValueError) else f"damaged ({error!r:.200})"
        raise ValueError(f"{path}: {text}") from error


def _archive(content: bytes) -> Predictor:
    """TorchScript or torch.export: both are ZIP archives with the metadata as an extra file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        found = [name for name in names if name.partition("/")[2] == f"extra/{KEY}"]
        if len(found) != 1 or len(set(names)) != len(names):
            raise ValueError(f"expected a file written by mcfa_fast's export, with {KEY} in it")
        if damaged := archive.testzip():
            raise ValueError(f"damaged (wrong checksum of {damaged})")
        metadata = Metadata.parse(archive.read(found[0]))
        if any(name.endswith("/constants.pkl") for name in names):
            return TorchPredictor(metadata, torch.jit.load(io.BytesIO(content), map_location="cpu"))
        check_program(archive)
    return TorchPredictor(metadata, torch.export.load(io.BytesIO(content)).module())


def _onnx(content: bytes) -> Predictor:
    size = len(onnx_trailer(b""))
    body = content[:-size]
    if onnx_trailer(body) != content[-size:]:
        raise ValueError("expected a file written by mcfa_fast's export; it is damaged or another")
    require("onnx", "an ONNX file")
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return OnnxPredictor(
        Metadata.parse(session.get_modelmeta().custom_metadata_map.get(KEY, "")), session
    )
