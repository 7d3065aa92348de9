"""Loads the compiled extension, with an error that says what to do when that fails."""

from __future__ import annotations

import importlib

import torch

_REINSTALL = (
    "It has to be built for the PyTorch that is installed: run "
    "`pip install --no-build-isolation --force-reinstall --no-deps .` in the source folder."
)


def load():
    """Imports ``mcfa_fast._C`` (which registers the operators) and returns it.

    Raises:
        ImportError: The extension is missing, does not load with the installed PyTorch, or was
            built for another minor version of it.
    """
    try:
        extension = importlib.import_module("mcfa_fast._C")
    except ImportError as error:
        raise ImportError(
            f"mcfa_fast: the compiled extension does not load with PyTorch {torch.__version__} "
            f"({error}). {_REINSTALL}"
        ) from error
    built_for = extension.build_info()["torch"]
    if built_for.split(".")[:2] != torch.__version__.split(".")[:2]:
        raise ImportError(
            f"mcfa_fast: the compiled extension was built for PyTorch {built_for}, but "
            f"{torch.__version__} is installed. {_REINSTALL}"
        )
    return extension
