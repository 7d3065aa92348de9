"""The ``.mat`` layout of Xian et al.'s benchmark (AWA2, CUB, SUN, aPY, ...)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.errors import DatasetError
from mcfa_fast.data.files import require, to_zero_based
from mcfa_fast.data.mat_file import read_mat
from mcfa_fast.data.splits import Rows, RowSplits

_SPLIT_ARRAYS = ("trainval_loc", "test_unseen_loc", "test_seen_loc")


def load_xlsa17(
    path: Path, *, features: str | None = None, semantics: str | None = None
) -> Dataset:
    """Load a folder with ``att_splits.mat`` and a file of features such as ``res101.mat``.

    The one split, ``"ps"``, is the benchmark's proposed split: training on ``trainval_loc``,
    testing on ``test_unseen_loc`` and, when generalized, on ``test_seen_loc``. As in the
    benchmark, the images of ``test_seen_loc`` are not trained on in the conventional setting
    either.

    Source: Y. Xian, C. H. Lampert, B. Schiele, Z. Akata, "Zero-Shot Learning: A Comprehensive
    Evaluation of the Good, the Bad and the Ugly", IEEE TPAMI 2019.

    Args:
        path: The folder.
        features: Stem of the features' file; None is ``"res101"``. The file holds
            ``features [F, N]``, kept as float32, and ``labels [N, 1]`` that count from 1.
        semantics: ``"att"`` (the default) or ``"original_att"`` of ``att_splits.mat``, ``[A, C]``
            there; another name, such as ``"sent"``, is ``att`` of ``sent_splits.mat``.
            ``allclasses_names`` may be missing, as it is for the flowers; names are made up then.

    Raises:
        DatasetError: if a file is missing, damaged or inconsistent with the other.
    """
    stem = (features or "res101").removesuffix(".mat")
    attribute, kind = "att", semantics or "att"
    if kind == "original_att":
        attribute, kind = kind, "att"
    splits_path = _splits_file(path, kind)
    features_path = require(path / f"{stem}.mat", "features [F, N] and labels [N, 1]")
    tables = _read(splits_path, (attribute, *_SPLIT_ARRAYS), ("allclasses_names",))
    images = _read(features_path, ("features", "labels"))
    rows = Rows(*(to_zero_based(tables[k], f"{splits_path}: {k}") for k in _SPLIT_ARRAYS))
    if images["features"].dtype.kind not in "fiu":
        raise DatasetError(
            f"{features_path}: expected numbers as features, got dtype {images['features'].dtype}"
        )
    with np.errstate(over="ignore"):  # the dataset refuses infinities
        features_table = np.ascontiguousarray(images["features"].T, dtype=np.float32)
    return Dataset(
        name=path.resolve().name,
        features=features_table,
        labels=to_zero_based(images["labels"], f"{features_path}: labels"),
        class_names=_class_names(tables, attribute, splits_path),
        semantics=tables[attribute].T,
        splits=RowSplits(zsl={"ps": rows}, gzsl={"ps": rows}),
    )


def _splits_file(path: Path, kind: str) -> Path:
    file = path / f"{kind}_splits.mat"
    found = sorted(other.name.removesuffix("_splits.mat") for other in path.glob("*_splits.mat"))
    if not file.is_file() and found:
        choices = [*found, *(["original_att"] if "att" in found else [])]
        raise DatasetError(f"{path}: no semantics {kind!r}; there are: {', '.join(choices)}")
    return require(file, "class attributes and splits")


def _class_names(tables: dict[str, np.ndarray], attribute: str, path: Path) -> tuple[str, ...]:
    if "allclasses_names" in tables:
        return tuple(_text(cell, path) for cell in tables["allclasses_names"].ravel())
    return tuple(f"class_{index:03d}" for index in range(np.shape(tables[attribute])[-1]))


def _read(
    path: Path, variables: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    content = read_mat(path, (*variables, *optional))
    missing = [name for name in variables if name not in content]
    if missing:
        raise DatasetError(f"{path}: no variable {', '.join(missing)}")
    return content


def _text(cell: np.ndarray, path: Path) -> str:
    values = np.asarray(cell).ravel()
    if values.size != 1 or values.dtype.kind != "U":
        raise DatasetError(f"{path}: allclasses_names: expected one text per class, got {cell!r}")
    return str(values[0])
