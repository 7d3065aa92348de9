"""Systems over prepared features: unit rows, centred on the training mean; unit descriptors."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mcfa_fast.systems.base import System, SystemConfig
from mcfa_fast.systems.layers import unit_rows
from mcfa_fast.systems.scaling import CentredScaler

__all__ = ["PreparedSystem"]


class PreparedSystem(System):
    """A system that scores classes by a module over prepared features.

    All of them see the same input: features with unit rows, centred on the training mean;
    descriptors with unit rows. A subclass says in :meth:`class_module` how prepared features are
    scored, which serves both :meth:`scores` and what is exported (:meth:`scorer`).

    Args:
        config, visual_features, semantic_features, device: see
            :class:`~mcfa_fast.systems.base.System`.

    Attributes:
        scaler: brings features to unit length and centres them.
    """

    dtype: ClassVar[type[np.floating]]
    """Floating type of prepared features and descriptors."""
    unit_semantics: ClassVar[bool] = True
    """Whether descriptors are given unit rows; False for those that need the values themselves."""

    def __init__(
        self,
        config: SystemConfig,
        visual_features: int,
        semantic_features: int,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, visual_features, semantic_features, device=device)
        self.scaler = CentredScaler(visual_features).to(_torch_dtype(self.dtype))
        self._latest: tuple[Tensor, nn.Module] | None = None

    @abstractmethod
    def class_module(self, semantics: np.ndarray) -> nn.Module:
        """Prepared features [N, F] to scores [N, K], for prepared descriptors [K, A].

        The module lies where the scaler does, and is of the system's `dtype`.
        """

    @torch.no_grad()
    def scores(self, features: Tensor, semantics: Tensor) -> Tensor:
        """Scores [N, K], in main memory, of raw features [N, F] for raw descriptors [K, A]."""
        offset = self.scaler.offset
        return self._module(semantics)(features.to(offset.device, offset.dtype)).cpu()

    def scorer(self, semantics: Tensor) -> nn.Module:
        """See :class:`~mcfa_fast.systems.base.ExportsScores`."""
        module = copy.deepcopy(self._module(semantics))
        return module.cpu().float().eval().requires_grad_(False)

    def state_dict(self) -> Mapping[str, Tensor]:
        return {"mean": self.scaler.offset, **self.learned_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        learned = dict(state)
        self.scaler.offset.copy_(learned.pop("mean"))
        self.load_learned(learned)
        self.finish()

    @abstractmethod
    def learned_state(self) -> Mapping[str, Tensor]:
        """All that was learned besides the features' mean."""

    @abstractmethod
    def load_learned(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`learned_state` gave."""

    def finish(self) -> None:
        # What class_module made may depend on all that is learned.
        self._latest = None

    def prepared_semantics(self, semantics: Tensor) -> np.ndarray:
        """Raw descriptors [K, A] as the system uses them."""
        table = semantics.cpu().numpy().astype(self.dtype)
        return unit_rows(table) if self.unit_semantics else table

    def _module(self, semantics: Tensor) -> nn.Module:
        """The whole module; kept, as images come in chunks that are all scored for one table."""
        latest = self._latest
        if latest is None or not torch.equal(latest[0], semantics):
            module = self.class_module(self.prepared_semantics(semantics))
            latest = semantics.clone(), nn.Sequential(self.scaler, module)
            self._latest = latest
        return latest[1]


def _torch_dtype(dtype: type[np.floating]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
