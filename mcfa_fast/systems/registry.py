"""Every system by name: a new one is its file and one entry here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from mcfa_fast.systems import cada_vae, dual_encoder, text_matching
from mcfa_fast.systems.ale import ALE
from mcfa_fast.systems.base import System
from mcfa_fast.systems.cmt import CMT
from mcfa_fast.systems.conse import ConSE
from mcfa_fast.systems.dap import DAP
from mcfa_fast.systems.devise import DeViSE
from mcfa_fast.systems.eszsl import ESZSL
from mcfa_fast.systems.iap import IAP
from mcfa_fast.systems.latem import LatEm
from mcfa_fast.systems.mcfa.presets import ABLATION as MCFA_ABLATION
from mcfa_fast.systems.mcfa.presets import CHANGES as MCFA_CHANGES
from mcfa_fast.systems.mcfa.presets import PRESETS as MCFA_PRESETS
from mcfa_fast.systems.mcfa.system import MCFASystem
from mcfa_fast.systems.presets import Preset, PresetOf, Task
from mcfa_fast.systems.ridge import Ridge
from mcfa_fast.systems.sae import SAE
from mcfa_fast.systems.sje import SJE
from mcfa_fast.systems.sse import SSE
from mcfa_fast.systems.sync import SynC

__all__ = ["RECOMMENDED", "SYSTEMS", "Entry", "find", "make_known", "register"]

RECOMMENDED = "dual-encoder"
"""The system that is taken where none is named."""

_VARIABLE, _GROUP = "MCFA_FAST_SYSTEMS", "mcfa_fast.systems"


def _defaults(task: Task) -> Preset:
    return Preset()


@dataclass(frozen=True)
class Entry:
    """A system with all that training, comparison and search need to know of it.

    Attributes:
        system: its class.
        heads: names of the heads that work with it, the default first.
        group: under which systems of a kind are chosen together.
        presets: by name, the default first.
        grid: values of options that selection by rule "grid" chooses from; the last option varies
            fastest.
        shortens: whether epochs in the grid are alternatives below those of the configuration.
        series: presets that are compared with each other, under a name of their own.
    """

    system: type[System]
    heads: tuple[str, ...]
    group: str
    presets: Mapping[str, PresetOf] = field(default_factory=lambda: {"paper": _defaults})
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    shortens: bool = False
    series: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the command line calls it."""
        return self.system.name


SYSTEMS: dict[str, Entry] = {}
"""Every system by name."""


def register(entry: Entry) -> None:
    """Make a system known, also one of another package, whose name is best ``"MODULE:NAME"``: any
    process then finds it by its name.

    Raises:
        ValueError: when another system has its name.
    """
    known = SYSTEMS.get(entry.name)
    if known is not None and known.system is not entry.system:
        raise ValueError(f"name: there is a system {entry.name!r} already, {known.system}")
    SYSTEMS[entry.name] = entry


def find(system: str | type, *, imports: bool = True) -> Entry:
    """The entry of a system, by its name or by the class of its options.

    Args:
        system: which.
        imports: whether a name ``"MODULE:NAME"`` may import the module, see :func:`make_known`.

    Raises:
        ValueError: when there is none.

    Example:
        >>> find("mcfa").heads
        ('softmax', 'nearest', 'ensemble')
    """
    if isinstance(system, str):
        make_known(system, imports=imports)
        if system in SYSTEMS:
            return SYSTEMS[system]
    else:
        for entry in SYSTEMS.values():
            if entry.system.Config is system:
                return entry
    hint = ""
    if isinstance(system, str) and ":" in system:
        module = system.rpartition(":")[0]
        hint = f"; import {module} first, or name it in the environment's {_VARIABLE}"
    raise ValueError(f"system: expected one of {', '.join(SYSTEMS)}, got {system!r}{hint}")


def make_known(name: str, *, imports: bool = True) -> None:
    """Import what registers a system of another package, if there is such a thing.

    That is, in this order: the modules that the environment variable ``MCFA_FAST_SYSTEMS`` lists,
    separated by commas; the entry point of this name in the group ``mcfa_fast.systems``; and for a
    name ``"MODULE:NAME"`` the module. Importing a module runs its code, so names that are read from
    files do not import (``imports=False``): a file alone runs none.

    Args:
        name: of a system, as its class has it.
        imports: whether the name itself may say which module to import.
    """
    if name in SYSTEMS:
        return
    for module in filter(None, os.environ.get(_VARIABLE, "").split(",")):
        import_module(module.strip())
    for point in entry_points(group=_GROUP, name=name):
        point.load()
    module = name.rpartition(":")[0]
    if imports and name not in SYSTEMS and module and _is_module(module):
        import_module(module)


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _powers(low: int, high: int) -> tuple[float, ...]:
    return tuple(10.0**exponent for exponent in range(low, high + 1))


_SCORES = ("scores",)
_LATENT_HEADS = ("softmax", "nearest", "ensemble")
_EPOCHS = {"epochs": (10, 20, 30, 40)}
# Of steps on the hinge losses of bilinear maps, which hardly depend on the rate over two decades.
_BILINEAR = {"learning_rate": (3.0, 30.0, 300.0), "epochs": (5, 20)}

for _entry in (
    Entry(
        dual_encoder.DualEncoder,
        ("nearest",),
        "contrastive",
        {"recommended": dual_encoder.recommended},
    ),
    Entry(
        text_matching.TextMatching,
        ("nearest",),
        "text",
        {"plain": text_matching.plain, "adapted": text_matching.adapted},
    ),
    Entry(
        MCFASystem,
        _LATENT_HEADS,
        "generative",
        MCFA_PRESETS,
        _EPOCHS,
        shortens=True,
        series={"ablation": tuple(MCFA_ABLATION), "changes": tuple(MCFA_CHANGES)},
    ),
    Entry(
        cada_vae.CADAVAE,
        _LATENT_HEADS,
        "generative",
        {"paper": cada_vae.paper, "reference": cada_vae.reference},
        {"epochs": (25, 50, 75)},
        shortens=True,
    ),
    Entry(
        ESZSL,
        _SCORES,
        "closed-form",
        grid={"visual_penalty": _powers(-3, 3), "semantic_penalty": _powers(-3, 3)},
    ),
    Entry(Ridge, _SCORES, "closed-form", grid={"penalty": _powers(-3, 3)}),
    Entry(
        SAE,
        _SCORES,
        "closed-form",
        grid={"direction": ("encode", "decode"), "penalty": _powers(0, 5)},
    ),
    Entry(
        ConSE, _SCORES, "linear", grid={"penalty": _powers(-3, 0), "top": (1, 3, 10, 100)}
    ),
    Entry(DAP, _SCORES, "linear", grid={"penalty": _powers(-2, 0)}),
    Entry(IAP, _SCORES, "linear", grid={"penalty": _powers(-3, 0)}),
    Entry(
        SynC,
        _SCORES,
        "linear",
        grid={"penalty": _powers(-2, 2), "width": (0.5, 1.0, 2.0, 4.0, 8.0)},
    ),
    Entry(DeViSE, _SCORES, "trained", grid=_BILINEAR),
    Entry(ALE, _SCORES, "trained", grid=_BILINEAR),
    Entry(SJE, _SCORES, "trained", grid=_BILINEAR),
    Entry(
        LatEm,
        _SCORES,
        "trained",
        grid={"maps": (2, 4), "learning_rate": (10.0, 30.0, 100.0), "epochs": (10,)},
    ),
    Entry(
        CMT, _SCORES, "trained", grid={"learning_rate": (1e-3, 3e-3, 1e-2), "epochs": (5, 20)}
    ),
    Entry(SSE, _SCORES, "trained", grid={"smoothing": (0.1, 0.3, 1.0), "epochs": (5, 10)}),
):
    register(_entry)
