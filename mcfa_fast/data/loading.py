"""Loading a dataset by name or from a folder of any known layout."""

from __future__ import annotations

import os
from pathlib import Path

from mcfa_fast.data.csv_folder import load_csv_folder
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.digits import digits
from mcfa_fast.data.errors import DatasetError, MissingFileError
from mcfa_fast.data.folder import load_folder
from mcfa_fast.data.synthetic import synthetic
from mcfa_fast.data.xlsa17 import load_xlsa17

_BUILT_IN = {"digits": digits, "synthetic": synthetic}

# The first layout with one of its telling files present is taken, in this order.
_LAYOUTS = (
    (("labels.npy", "class_names.json", "semantics.npz", "features*.npy"), load_folder),
    (("*_splits.mat", "res101.mat"), load_xlsa17),
    (("*.csv", "label*.txt"), load_csv_folder),
)


def load(
    path_or_name: str | os.PathLike[str],
    *,
    features: str | None = None,
    semantics: str | None = None,
) -> Dataset:
    """Load a dataset.

    Args:
        path_or_name: ``"digits"`` (see :func:`~mcfa_fast.data.digits.digits`), ``"synthetic"``
            (see :func:`~mcfa_fast.data.synthetic.synthetic`), or a folder, whose layout is
            recognised from its files:

            - a dataset folder, see :func:`~mcfa_fast.data.folder.load_folder`;
            - ``att_splits.mat`` and ``res101.mat``, see
              :func:`~mcfa_fast.data.xlsa17.load_xlsa17`;
            - the MCFA authors' CSV, MAT and TXT files, see
              :func:`~mcfa_fast.data.csv_folder.load_csv_folder`.

            A folder that is called like a built-in dataset is ``"./digits"``.
        features: Which file of features, where the layout allows several.
        semantics: Which class descriptors, where there are several.

    Returns:
        The checked dataset. Features of a dataset folder are a read-only memory map.

    Raises:
        DatasetError: if anything is wrong with the files, naming the file and the problem; for
            missing ones it is a :class:`MissingFileError`, which is a ``FileNotFoundError`` too.
            Nothing is ever unpickled.

    >>> load("digits")
    Dataset('digits': 1797 rows, 64 features, 10 classes, 26 semantic features, 5 splits)
    """
    place = locate(path_or_name)
    if place in _BUILT_IN:
        if features is not None or semantics is not None:
            raise DatasetError(f"{place}: has no other features or semantics to choose")
        return _BUILT_IN[place]()
    path = Path(place)
    if not path.is_dir():
        raise MissingFileError(
            f"{path}: expected a folder or one of {', '.join(_BUILT_IN)}, found "
            f"{'a file' if path.exists() else 'nothing'}"
        )
    for patterns, load_layout in _LAYOUTS:
        if any(next(path.glob(pattern), None) for pattern in patterns):
            try:
                return load_layout(path, features=features, semantics=semantics)
            except DatasetError as error:
                if str(path) in str(error):
                    raise
                raise DatasetError(f"{path}: {error}") from error
    telling = "; ".join(", ".join(patterns) for patterns, _ in _LAYOUTS)
    raise MissingFileError(f"{path}: no known layout; expected files of one kind: {telling}")


def locate(path_or_name: str | os.PathLike[str]) -> str:
    """What :func:`load` takes for the same dataset in any working directory.

    >>> locate("digits"), locate("/data/mine")
    ('digits', '/data/mine')
    """
    if path_or_name in _BUILT_IN:
        return str(path_or_name)
    return str(Path(path_or_name).expanduser().absolute())
