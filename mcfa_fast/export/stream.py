"""Classifying files of any size in a bounded amount of memory."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, get_args

import numpy as np
import torch.distributed as dist

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.classifiers.transductive_view import TransductiveClassifier
from mcfa_fast.data.checks import check_features
from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.data.errors import DatasetError
from mcfa_fast.data.files import require
from mcfa_fast.data.npy import NpyFile
from mcfa_fast.export.finite import probabilities
from mcfa_fast.export.output import check_output
from mcfa_fast.storage import write_atomically
from mcfa_fast.training.ranks import World

__all__ = ["OUTPUT_FORMATS", "OutputFormat", "classify_file"]

OutputFormat = Literal["csv", "npy"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)

RECORD = np.dtype([("class", "<i8"), ("score", "<f4")])
"""An entry of a .npy output: class index and probability."""

_SENT = np.dtype([("class", "<i8"), ("score", "<f8")])
"""The same between ranks, in full precision."""

_CHUNK_BYTES = 8 * 2**20
_CHUNK_ROWS = 65536


class _Best(NamedTuple):
    """The most probable classes of a chunk of rows, best first."""

    start: int
    """Number of the chunk's first row in the file."""
    classes: np.ndarray
    """[n, top] class indices."""
    scores: np.ndarray
    """[n, top] probabilities."""


def classify_file(
    classifier: ZeroShotClassifier,
    features: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    top: int = 1,
    format: OutputFormat = "csv",
    progress: Callable[[int, int], None] | None = None,
    group: dist.ProcessGroup | None = None,
    together: TransductiveClassifier | None = None,
) -> int:
    """Classify the rows of a .npy file, holding only a few MiB of it at a time.

    The output replaces `output` once it is whole. As "csv" it has the columns ``row``, ``rank``
    (from 1), ``class`` (the name) and ``score`` (the probability, see
    :meth:`ZeroShotClassifier.predict_proba`), `top` lines per row. As "npy" it is an array
    [N, top] of records with the fields ``class`` (the index, int64) and ``score`` (float32).

    Args:
        classifier: a fitted classifier.
        features: a .npy file with raw features [N, F] of any numeric type.
        output: the file to write.
        top: how many classes per row, best first; at most all are written.
        format: "csv" or "npy".
        progress: called as ``progress(rows done, N)``, at first with 0; on rank 0 alone.
        group: processes that share the rows, each calling this with the same arguments; rank 0
            writes what one process would write. None is this process alone.
        together: what ``classifier.transductive`` gave, to classify all rows as one set. Memory is
            then that of the set; progress is told in rows of every round.

    Returns:
        N.

    Raises:
        ValueError: when `features` is not readable, of a wrong shape or not finite, when scores are
            not finite (it names the cause), when `output` is `features` under whatever name, or on
            a bad `top` or `format`.

    Example:
        >>> import tempfile
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> train = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("eszsl").fit(
        ...     digits.features[train], digits.labels[train], digits.semantics
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", digits.features)
        ...     rows = classify_file(
        ...         classifier, f"{folder}/a.npy", f"{folder}/b.npy", format="npy"
        ...     )
        ...     np.load(f"{folder}/b.npy").shape
        (1797, 1)
    """
    if format not in OUTPUT_FORMATS:
        raise ValueError(f"format: expected one of {OUTPUT_FORMATS}, got {format!r}")
    if top < 1:
        raise ValueError(f"top: expected 1 or more, got {top}")
    check_output(output, features)
    world = World(group)
    rows = _open(Path(features), classifier.n_features_in_)
    top = min(top, len(classifier.classes_))
    if together is None:
        best = _classify(classifier, rows, top, progress or (lambda done, total: None), world)
    else:
        best = _classify_together(together, rows, top, progress)
    if not world.first:
        for _ in best:
            pass
        return len(rows)

    def write(file: BinaryIO) -> None:
        if format == "csv":
            _write_csv(file, classifier.class_names_, best)
        else:
            _write_npy(file, (len(rows), top), best)

    write_atomically(Path(output), write)
    return len(rows)


def _open(path: Path, width: int) -> NpyFile:
    rows = NpyFile(require(path, "the features to classify"))
    check_features(rows, values=False)
    if rows.shape[1] != width:
        raise DatasetError(f"{path}: expected shape [N, {width}], got {list(rows.shape)}")
    return rows


def _classify(
    classifier: ZeroShotClassifier,
    rows: NpyFile,
    top: int,
    progress: Callable[[int, int], None],
    world: World,
) -> Iterator[_Best]:
    """All chunks in order, on rank 0. In each round every rank classifies one of them."""
    progress(0, len(rows))
    size = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES * len(rows) // rows.nbytes))
    for first in range(0, len(rows), size * world.size):
        start = first + size * world.rank
        own = _own(classifier, rows, slice(start, start + size), top)
        for chunk in own if world.group is None else _gathered(own, first, size, top, world):
            yield chunk
            progress(chunk.start + len(chunk.classes), len(rows))


def _classify_together(
    classifier: TransductiveClassifier,
    rows: NpyFile,
    top: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[_Best]:
    classifier = classifier.with_progress(progress)
    try:
        scores = classifier.predict_proba(rows)
    except ValueError as error:
        raise ValueError(f"{rows.path}: {error}") from error
    for part in row_chunks(len(scores), _CHUNK_ROWS):
        yield _best(part.start, classifier.classes_, scores[part], top)


def _best(start: int, classes: np.ndarray, scores: np.ndarray, top: int) -> _Best:
    if top == 1:
        columns = scores.argmax(axis=1, keepdims=True)
    else:
        columns = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return _Best(start, classes[columns], np.take_along_axis(scores, columns, axis=1))


def _own(
    classifier: ZeroShotClassifier, rows: NpyFile, part: slice, top: int
) -> list[_Best]:
    """The chunk of some of the rows; none behind the last row."""
    if part.start >= len(rows):
        return []
    features = _read(rows, part)
    try:
        scores = probabilities(classifier, features, first_row=part.start)
    except ValueError as error:
        raise ValueError(f"{rows.path}: {error}") from error
    return [_best(part.start, classifier.classes_, scores, top)]


def _gathered(
    own: list[_Best], first: int, size: int, top: int, world: World
) -> Iterator[_Best]:
    """The chunks of all ranks in their order, on rank 0."""
    sent = b"".join(_records(chunk, _SENT).tobytes() for chunk in own)
    for rank, content in enumerate(world.gather(sent)):
        records = np.frombuffer(content, _SENT).reshape(-1, top)
        if len(records):
            yield _Best(first + rank * size, records["class"], records["score"])


def _read(rows: NpyFile, part: slice) -> np.ndarray:
    with np.errstate(over="ignore"):  # found to be infinite
        features = rows[part].astype(np.float32)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        row = part.start + int(finite.argmin())
        raise DatasetError(f"{rows.path}: NaN or infinity in row {row} (in float32)")
    return features


def _write_csv(file: BinaryIO, names: Sequence[str], best: Iterator[_Best]) -> None:
    quoted = np.array([_quoted(name) for name in names], dtype=object)
    file.write(b"row,rank,class,score\n")
    for chunk in best:
        count, top = chunk.classes.shape
        values: list[object] = [None] * (4 * count * top)
        values[0::4] = np.repeat(np.arange(chunk.start, chunk.start + count), top).tolist()
        values[1::4] = list(range(1, top + 1)) * count
        values[2::4] = quoted[chunk.classes.ravel()].tolist()
        values[3::4] = chunk.scores.ravel().tolist()
        # One formatting call for all lines: five times as fast as a csv.writer row by row.
        file.write((("%d,%d,%s,%.6g\n" * (count * top)) % tuple(values)).encode())


def _quoted(text: str) -> str:
    """As a field of a CSV file."""
    buffer = io.StringIO()
    # The default line end, for only what occurs in the line end makes the writer quote a field.
    csv.writer(buffer).writerow([text])
    return buffer.getvalue().removesuffix("\r\n")


def _write_npy(file: BinaryIO, shape: tuple[int, int], best: Iterator[_Best]) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(RECORD),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    for chunk in best:
        file.write(_records(chunk, RECORD).tobytes())


def _records(chunk: _Best, dtype: np.dtype) -> np.ndarray:
    records = np.empty(chunk.classes.shape, dtype)
    records["class"], records["score"] = chunk.classes, chunk.scores
    return records
