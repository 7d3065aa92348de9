"""Writing a trained classifier as TorchScript, torch.export or ONNX."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import torch

from mcfa_fast._extras import require
from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.export.metadata import KEY, Metadata
from mcfa_fast.export.module import DeployedClassifier
from mcfa_fast.storage import write_atomically

__all__ = ["FORMATS", "Format", "export_classifier", "onnx_trailer"]

Format = Literal["torchscript", "export", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)

_SUFFIXES: dict[str, Format] = {".pt2": "export", ".onnx": "onnx"}


def export_classifier(
    classifier: ZeroShotClassifier,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    head: str | None = None,
) -> Metadata:
    """Write scaler, system, head and calibration as one file, crash-safely.

    The number of rows is free, the features are float32 [N, F]. Classes, head and calibration are
    fixed in the file; its metadata names them.

    Args:
        classifier: a fitted classifier.
        path: the file to write.
        format: "torchscript" for PyTorch in Python and C++, "export" for ``torch.export.load`` and
            AOTInductor, "onnx" for ONNX Runtime and others. None goes by the file's name: ``.pt2``
            is "export", ``.onnx`` is "onnx", anything else "torchscript".
        head: which head gives the scores; None is the classifier's own.

    Returns:
        The metadata in the file.

    Raises:
        NotFittedError: before the classifier was fitted.
        ImportError: for "onnx" without ``pip install mcfa_fast[onnx]``.
        ValueError: on an unknown format or head, or a classifier that cannot be exported, see
            :class:`~mcfa_fast.export.module.DeployedClassifier`.

    Example:
        >>> import tempfile
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("eszsl").fit(
        ...     digits.features[rows], digits.labels[rows], digits.semantics
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_classifier(classifier, f"{folder}/digits.pt").class_indices
        (3, 4, 8)
    """
    path = Path(path)
    if format is None:
        format = _SUFFIXES.get(path.suffix, "torchscript")
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {FORMATS}, got {format!r}")
    if head is not None:
        classifier = classifier.with_head(head)
    module, metadata = DeployedClassifier(classifier), Metadata.of(classifier)
    write: Callable[[DeployedClassifier, str], bytes] = {
        "torchscript": _torchscript,
        "export": _export,
        "onnx": _onnx,
    }[format]
    content = write(module, metadata.model_dump_json())
    write_atomically(path, lambda file: file.write(content))
    return metadata


def onnx_trailer(content: bytes) -> bytes:
    """What ends an exported ONNX file: a property of the model, the digest of all before it.

    A protobuf message goes on after its end: more fields of a repeated one, such as the properties,
    just follow. So the digest covers the whole file, which has no checksum of its own, and any ONNX
    program still reads it.
    """
    digest = hashlib.sha256(content).hexdigest().encode()
    key = b"mcfa_fast.sha256"
    entry = bytes([0x0A, len(key)]) + key + bytes([0x12, len(digest)]) + digest
    return bytes([0x72, len(entry)]) + entry  # field 14 of ModelProto, metadata_props


def _torchscript(module: DeployedClassifier, metadata: str) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer, _extra_files={KEY: metadata})
    return buffer.getvalue()


def _export(module: DeployedClassifier, metadata: str) -> bytes:
    program = _program(module)
    # Example inputs would be the only pickle in the file.
    program.example_inputs = None
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={KEY: metadata})
    return buffer.getvalue()


def _onnx(module: DeployedClassifier, metadata: str) -> bytes:
    require("onnx", "format 'onnx'")
    with _quiet():
        program = torch.onnx.export(
            _program(module),
            dynamo=True,
            input_names=["features"],
            output_names=["scores"],
            verbose=False,
        )
    assert program is not None, "what the exporter returns with dynamo=True"
    model = program.model_proto
    model.metadata_props.add(key=KEY, value=metadata)
    content = model.SerializeToString()
    return content + onnx_trailer(content)


def _program(module: DeployedClassifier) -> torch.export.ExportedProgram:
    rows = torch.export.Dim("rows")
    program = torch.export.export(
        module, (torch.zeros(2, module.features),), dynamic_shapes=({0: rows},)
    )
    for node in program.graph.nodes:  # the file should not depend on where the library lies
        node.meta.pop("stack_trace", None)
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Without remarks about packages that are not installed and deprecations within PyTorch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
