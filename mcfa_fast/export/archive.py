"""What a torch.export archive may hold, so that ``torch.export.load`` runs no code from it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

__all__ = ["check_program"]

_RECORDS = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/model_constants_config\.json|data/sample_inputs/model\.pt|models/model\.json"
    r"|extra/[\w.]+|archive_format|archive_version|byteorder|\.data/\w+)"
)
_SYMBOL = re.compile(r"Symbol\('\w+'(, \w+=True)*\)|\d+")
_PLAIN = re.compile(r"[\w.,;+-]*")
_CONTAINERS = {None, "builtins.tuple", "builtins.dict"}
_OPERATORS = {
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_tensor_metadata.default",
        "add.Tensor",
        "amax.default",
        "clamp.default",
        "clamp_min.default",
        "div.Tensor",
        "expand_as.default",
        "ge.Tensor",
        "index_select.default",
        "linalg_vector_norm.default",
        "linear.default",
        "log.default",
        "log_softmax.int",
        "matmul.default",
        "maximum.default",
        "mul.Tensor",
        "numpy_T.default",
        "relu.default",
        "select.int",
        "slice.Tensor",
        "softmax.int",
        "square.default",
        "stack.default",
        "sub.Tensor",
        "sum.dim_IntList",
        "tanh.default",
        "to.dtype",
        "topk.default",
        "unbind.int",
        "unflatten.int",
        "where.self",
        "zeros_like.default",
    )
}


def check_program(archive: zipfile.ZipFile) -> None:
    """Refuse all but plain weights and a program of the operators that a classifier needs.

    PyTorch's reader unpickles some kinds of records, evaluates sizes and guards as Python
    expressions, imports the modules of containers, looks up functions by name and writes names
    into Python code; a file from elsewhere must not make it do any of this.

    Raises:
        ValueError: naming what the archive should not hold.
    """
    for name in archive.namelist():
        if not _RECORDS.fullmatch(name):
            raise ValueError(f"the archive holds {name!r:.80}, which no exported classifier has")
        if name.endswith("/model.pt") and archive.getinfo(name).file_size:
            raise ValueError(f"the archive holds pickled objects ({name})")
        if name.endswith("_config.json"):
            config = json.loads(archive.read(name))
            if any(value for key, value in _items(config) if key == "use_pickle"):
                raise ValueError(f"the archive holds pickled objects (according to {name})")
            if "constants" in name and config != {"config": {}}:
                raise ValueError("the archive holds constants, which no exported classifier has")
        if name.endswith("/models/model.json"):
            _check_graph(json.loads(archive.read(name)))


def _check_graph(program: dict[str, Any]) -> None:
    for key, value in _items(program):
        if key == "target":
            good = value in _OPERATORS
        elif key == "expr_str":
            good = isinstance(value, str) and bool(_SYMBOL.fullmatch(value))
        elif key in ("in_spec", "out_spec"):
            kinds = {kind for name, kind in _items(json.loads(value)) if name == "type"}
            good = kinds <= _CONTAINERS
        elif key in ("guards_code", "treespec_namedtuple_fields"):
            good = not value
        else:
            # Elsewhere no text could be an expression: there are no brackets, quotes or spaces.
            good = not isinstance(value, str) or bool(_PLAIN.fullmatch(value))
        if not good or not _PLAIN.fullmatch(key):
            raise ValueError(
                f"the archive's program has {key:.40} {value!r:.80}, which no exported classifier "
                "has; nothing of it was run"
            )


def _items(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value at any depth of parsed JSON, with its key or that of the list around it."""
    yield key, value
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _items(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _items(part, key)
