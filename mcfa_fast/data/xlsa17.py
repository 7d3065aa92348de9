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
        semantics: ``"att"`` (the default) or ``"original_att"``, ``[A, C]`` in the file.

    Raises:
        DatasetError: if a file is missing, damaged or inconsistent with the other.
    """
    stem = (features or "res101").removesuffix(".mat")
    splits_path = require(path / "att_splits.mat", "class attributes and splits")
    features_path = require(path / f"{stem}.mat", "features [F, N] and labels [N, 1]")
    attribute = semantics or "att"
    if attribute not in ("att", "original_att"):
        raise DatasetError(f"{path}: no semantics {attribute!r}; there are: att, original_att")
    tables = _read(splits_path, (attribute, "allclasses_names", *_SPLIT_ARRAYS))
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
        class_names=tuple(_text(cell, splits_path) for cell in tables["allclasses_names"].ravel()),
        semantics=tables[attribute].T,
        splits=RowSplits(zsl={"ps": rows}, gzsl={"ps": rows}),
    )


def _read(path: Path, variables: tuple[str, ...]) -> dict[str, np.ndarray]:
    content = read_mat(path, variables)
    missing = [name for name in variables if name not in content]
    if missing:
        raise DatasetError(f"{path}: no variable {', '.join(missing)}")
    return content


def _text(cell: np.ndarray, path: Path) -> str:
    values = np.asarray(cell).ravel()
    if values.size != 1 or values.dtype.kind != "U":
        raise DatasetError(f"{path}: allclasses_names: expected one text per class, got {cell!r}")
    return str(values[0])
