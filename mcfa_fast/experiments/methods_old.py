"""The methods of a comparison: how each is built, chosen within the training rows, and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from mcfa_fast import baselines, experiment
from mcfa_fast.systems.baseline_old import Baseline
from mcfa_fast.systems.mcfa.config import MCFAConfig, Task
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.evaluation.evaluate import Evaluation, evaluate
from mcfa_fast.selection.folds_old import FOLDS
from mcfa_fast.selection.choose import select
from mcfa_fast.experiments.variants_old import ABLATION, CADA_VAE, CHANGES

__all__ = [
    "BASELINE_GROUPS",
    "METHODS",
    "BaselineMethod",
    "MCFAMethod",
    "Method",
    "Outcome",
    "resolve_methods",
]


@dataclass(frozen=True)
class Outcome:
    """One row of results.

    Attributes:
        method: name of the row.
        evaluation: results on the test rows.
        chosen: what was chosen on the training rows.
    """

    method: str
    evaluation: Evaluation
    chosen: Mapping[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """What a comparison asks of a method.

    Attributes:
        group: name under which methods of a kind are chosen together.
        rows: names of the rows that a run gives, appended to the method's own.
    """

    group: str
    rows: tuple[str, ...]

    def identity(self, task: Task, seed: int) -> dict[str, Any]:
        """Every option that results depend on, as values that JSON knows.

        Args:
            task: conventional or generalized.
            seed: seed of every random stream.
        """

    def run(
        self, dataset: Dataset, split: str, task: Task, seed: int, *, device: str, folder: Path
    ) -> list[Outcome]:
        """Train on the split's training rows, choose there too, and evaluate on its test rows.

        Args:
            dataset: the data.
            split: name of the split.
            task: conventional or generalized.
            seed: seed of every random stream.
            device: where to train, if the method can choose.
            folder: where a killed run may find its state again; created when needed.
        """


@dataclass(frozen=True)
class BaselineMethod:
    """A baseline with the grid of hyperparameters that it is given.

    Attributes:
        estimator: its class.
        grid: values of every hyperparameter; the last one varies fastest.
    """

    estimator: type[Baseline]
    grid: Mapping[str, Sequence[Any]]
    group: str
    rows: tuple[str, ...] = ("",)

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Every setting of the grid."""
        return [dict(zip(self.grid, v, strict=True)) for v in product(*self.grid.values())]

    def identity(self, task: Task, seed: int) -> dict[str, Any]:
        """See :class:`Method`; of the estimator's parameters, those that nothing else sets."""
        parameters = self.estimator(task=task).get_params()
        elsewhere = {*self.grid, "calibration", "device", "seed"}
        return {
            "estimator": self.estimator.__name__,
            "parameters": {k: v for k, v in parameters.items() if k not in elsewhere},
            "grid": dict(self.grid),
            "folds": FOLDS,
            "rows": self.rows,
        }

    def run(
        self, dataset: Dataset, split: str, task: Task, seed: int, *, device: str, folder: Path
    ) -> list[Outcome]:
        """See :class:`Method`; the setting and the calibration come from :func:`select`."""
        rows = dataset.split(split, generalized=task == "gzsl")
        baseline = self.estimator(task=task)
        offered = {"seed": seed, "device": device}
        baseline.set_params(**{k: v for k, v in offered.items() if k in baseline.get_params()})
        images = dataset.features[rows.train], dataset.labels[rows.train], dataset.semantics
        selection = select(baseline, self.settings, *images, seed=seed)
        baseline.set_params(**selection.parameters, calibration=selection.calibration)
        baseline.fit(*images, class_names=dataset.class_names, unseen_classes=rows.unseen_classes)
        chosen = {**selection.parameters, "validation_score": selection.score}
        return [Outcome(baseline.method, evaluate(baseline, dataset, rows), chosen)]


@dataclass(frozen=True)
class MCFAMethod:
    """A preset of MCFA. The classifiers of one training are rows of their own.

    Attributes:
        preset: "paper" or "reference".
        options: what differs from the preset.
    """

    preset: str
    options: Mapping[str, Any] = field(default_factory=dict)
    group: str = "mcfa"
    rows: tuple[str, ...] = ("/softmax", "/nearest", "/ensemble")

    def config(self, task: Task, seed: int) -> MCFAConfig:
        """The configuration of a run."""
        return getattr(MCFAConfig, self.preset)(task, seed=seed, **self.options)

    def identity(self, task: Task, seed: int) -> dict[str, Any]:
        """See :class:`Method`."""
        return {"config": self.config(task, seed).model_dump(mode="json"), "rows": self.rows}

    def run(
        self, dataset: Dataset, split: str, task: Task, seed: int, *, device: str, folder: Path
    ) -> list[Outcome]:
        """See :class:`Method`; a killed run resumes in `folder`."""
        config = self.config(task, seed)
        results = experiment.run(config, dataset, split, run_dir=folder, device=device)
        return [
            Outcome(method, results[method.lstrip("/")], {"selection": config.selection})
            for method in self.rows
        ]


def _powers(low: int, high: int) -> tuple[float, ...]:
    return tuple(10.0**exponent for exponent in range(low, high + 1))


# Of steps on the hinge losses of bilinear maps, which hardly depend on the rate over two decades.
_BILINEAR = {"learning_rate": (3.0, 30.0, 300.0), "epochs": (5, 20)}

METHODS: dict[str, Method] = {
    "eszsl": BaselineMethod(
        baselines.ESZSL,
        {"visual_penalty": _powers(-3, 3), "semantic_penalty": _powers(-3, 3)},
        "closed-form",
    ),
    "ridge": BaselineMethod(baselines.Ridge, {"penalty": _powers(-3, 3)}, "closed-form"),
    "sae": BaselineMethod(
        baselines.SAE,
        {"direction": ("encode", "decode"), "penalty": _powers(0, 5)},
        "closed-form",
    ),
    "conse": BaselineMethod(
        baselines.ConSE, {"penalty": _powers(-3, 0), "top": (1, 3, 10, 100)}, "linear"
    ),
    "dap": BaselineMethod(baselines.DAP, {"penalty": _powers(-2, 0)}, "linear"),
    "iap": BaselineMethod(baselines.IAP, {"penalty": _powers(-3, 0)}, "linear"),
    "sync": BaselineMethod(
        baselines.SynC, {"penalty": _powers(-2, 2), "width": (0.5, 1.0, 2.0, 4.0, 8.0)}, "linear"
    ),
    "devise": BaselineMethod(baselines.DeViSE, _BILINEAR, "trained"),
    "ale": BaselineMethod(baselines.ALE, _BILINEAR, "trained"),
    "sje": BaselineMethod(baselines.SJE, _BILINEAR, "trained"),
    "latem": BaselineMethod(
        baselines.LatEm,
        {"maps": (2, 4), "learning_rate": (10.0, 30.0, 100.0), "epochs": (10,)},
        "trained",
    ),
    "cmt": BaselineMethod(
        baselines.CMT, {"learning_rate": (1e-3, 3e-3, 1e-2), "epochs": (5, 20)}, "trained"
    ),
    "sse": BaselineMethod(
        baselines.SSE, {"smoothing": (0.1, 0.3, 1.0), "epochs": (5, 10)}, "trained"
    ),
    "mcfa-best": MCFAMethod("best"),
    "mcfa-paper": MCFAMethod("paper", {"selection": "validation"}),
    "mcfa-reference": MCFAMethod("reference"),
    "cada-vae": MCFAMethod(
        "paper", {"selection": "validation", **CADA_VAE}, "generative", rows=("/softmax",)
    ),
    **{name: MCFAMethod("paper", options, "ablation") for name, options in ABLATION.items()},
    **{name: MCFAMethod("paper", options, "changes") for name, options in CHANGES.items()},
}
"""Every method by name."""

BASELINE_GROUPS = ("closed-form", "linear", "trained", "generative")
"""Groups of other people's methods."""


def resolve_methods(names: Sequence[str]) -> list[str]:
    """Names of methods, in the order of :data:`METHODS`, for names of methods or of groups.

    Raises:
        ValueError: on a name that is neither.

    Example:
        >>> resolve_methods(["sync", "closed-form"])
        ['eszsl', 'ridge', 'sae', 'sync']
    """
    groups = {method.group for method in METHODS.values()}
    for name in names:
        if name not in METHODS and name not in groups:
            raise ValueError(
                f"methods: expected names among {', '.join(METHODS)} or groups among "
                f"{', '.join(sorted(groups))}, got {name!r}"
            )
    return [name for name, method in METHODS.items() if name in names or method.group in names]
