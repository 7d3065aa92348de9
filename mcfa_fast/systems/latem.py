"""LatEm: several bilinear maps, one of which is chosen for every pair of image and class."""

from __future__ import annotations

import torch
from torch import Tensor

from mcfa_fast.systems.bilinear import BilinearBaseline
from mcfa_fast.systems.checks_old import check_number
from mcfa_fast.systems.devise import hinge_rank_loss
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["LatEm"]


class LatEm(BilinearBaseline):
    """Latent embeddings: ``F(x, y) = max_k x^T W_k s_y`` with the hinge rank loss.

    The loss sums over all wrong classes, where the authors' steps draw one. The number of maps is
    a hyperparameter (their pruning of unused maps is the alternative to choosing it).

    Args:
        maps: number K of maps.
        epochs, learning_rate, batch_size, seed, device: see
            :class:`~mcfa_fast.systems.trained_old.TrainedBaseline`.
        task, calibration: see :class:`~mcfa_fast.systems.baseline_old.Baseline`.

    Source:
        Xian et al., "Latent embeddings for zero-shot classification", 2016, Section 3: the
        piecewise-linear compatibility, the ranking objective and its gradient steps.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> split = digits.split("7/3:0", generalized=False)
        >>> latem = LatEm(maps=2, epochs=2).fit(
        ...     digits.features[split.train], digits.labels[split.train], digits.semantics
        ... )
        >>> latem.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "latem"
    _criterion = staticmethod(hinge_rank_loss)

    def __init__(
        self,
        *,
        maps: int = 2,
        epochs: int = 10,
        learning_rate: float = 30.0,
        batch_size: int = 64,
        seed: int = 0,
        device: torch.device | str = "cpu",
        task: Task = "zsl",
        calibration: float | None = None,
    ) -> None:
        super().__init__(
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            device=device,
            task=task,
            calibration=calibration,
        )
        self.maps = maps

    def _check(self) -> None:
        super()._check()
        check_number("maps", self.maps, whole=True)

    def _initial(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        # Not zero: equal maps would stay equal.
        return torch.randn(self.maps, *shape, generator=generator) / shape[0] ** 0.5
