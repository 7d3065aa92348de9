"""Which modules each extra of the package brings, and the one error for an extra that is missing.

Only PyTorch and NumPy come with the package itself. A room that needs more says so in the first
line of its ``__init__`` (whose import precedes that of every module of the room), and a function
that needs more before it imports it.
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["MODULES", "MissingExtraError", "require"]

MODULES = {
    "zsl": ("sklearn", "scipy", "pydantic", "threadpoolctl", "filelock"),
    "cli": ("typer", "rich", "tensorboard"),
    "index": ("faiss",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "report": ("jinja2", "markupsafe", "matplotlib"),
    "serve": ("fastapi", "uvicorn"),
    "text": ("sentence_transformers",),
    "tune": ("optuna",),
}
"""By extra, the modules that it brings beside those of the extras that it includes."""


class MissingExtraError(ImportError):
    """Something was asked for that an extra of the package brings, which is not installed."""


def require(extra: str, what: str) -> None:
    """Checks that an extra is installed, without importing it.

    A module that is installed but does not load passes: importing it tells the cause.

    Args:
        extra: One of :data:`MODULES`.
        what: What needs it, the beginning of the message.

    Raises:
        MissingExtraError: When a module of it is not installed.

    Example:
        >>> require("zsl", "mcfa_fast.classifiers")
    """
    for module in MODULES[extra]:
        if find_spec(module) is None:
            raise MissingExtraError(
                f"{what}: {module} is not installed; pip install 'mcfa_fast[{extra}]'", name=module
            )
