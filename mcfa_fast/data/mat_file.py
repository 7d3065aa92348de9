"""MATLAB files, read without trusting them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mcfa_fast._extras import require
from mcfa_fast.data.errors import DatasetError

_FIRST_ELEMENT = slice(128, 132)  # after the header: a type code, in the byte order of the file
_COMPRESSED = (b"\x0f\0\0\0", b"\0\0\0\x0f")
_TRIAL = """
import sys
sys.path += sys.argv[2:]
import scipy.io
scipy.io.loadmat(sys.argv[1], appendmat=False)
"""


def read_mat(path: Path, variables: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read variables of a MATLAB file (format 4 to 7.2), all of them when None.

    Raises:
        DatasetError: The file is damaged, cut short, of another kind or of format 7.3.
        MissingExtraError: SciPy is not installed.
    """
    require("zsl", f"{path}: a MATLAB file")
    import scipy.io

    try:
        _survive_reading(path)
        content = scipy.io.loadmat(path, variable_names=variables, appendmat=False)
    except NotImplementedError as error:
        raise DatasetError(
            f"{path}: a MATLAB 7.3 (HDF5) file; save it with save(..., '-v7')"
        ) from error
    except Exception as error:
        raise DatasetError(
            f"{path}: cannot be read as a MATLAB file; it is damaged, cut short or of another "
            f"kind: {error}"
        ) from error
    return {name: value for name, value in content.items() if not name.startswith("__")}


def _survive_reading(path: Path) -> None:
    """Read an uncompressed file in another process first.

    SciPy's reader takes sizes and types on trust, so that a damaged file can crash the interpreter.
    Compressed files, which MATLAB writes by default, carry a checksum.
    """
    import scipy

    with path.open("rb") as file:
        if file.read(_FIRST_ELEMENT.stop)[_FIRST_ELEMENT] in _COMPRESSED:
            return
    # Isolated (-I): modules that lie in the current folder are not the ones that are meant.
    places = {str(Path(module.__path__[0]).parent) for module in (np, scipy)}
    trial = subprocess.run(
        [sys.executable, "-I", "-c", _TRIAL, path, *sorted(places)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if trial.returncode < 0:
        raise ValueError("its sizes and types contradict each other")
