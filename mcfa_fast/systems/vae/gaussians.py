"""Gaussians in the latent space, which a classifier's training samples are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mcfa_fast.systems.vae.model import AlignedVAEs

__all__ = ["GaussianBank"]


@dataclass(frozen=True, eq=False)
class GaussianBank:
    """A :class:`~mcfa_fast.systems.base.SampleBank` of latent Gaussians, in main memory.

    Attributes:
        model: Its options say how noise is drawn; its weights are not used.
        mean: [R, D].
        logvar: [R, D].
    """

    model: AlignedVAEs
    mean: Tensor
    logvar: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def join(self, other: GaussianBank) -> GaussianBank:
        """Both banks' Gaussians, this one's first."""
        return GaussianBank(
            self.model,
            torch.cat([self.mean, other.mean]),
            torch.cat([self.logvar, other.logvar]),
        )

    def draw(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        """So many latents [M, D] of each Gaussian."""
        mean = self.mean.repeat_interleave(counts, dim=0)
        logvar = self.logvar.repeat_interleave(counts, dim=0)
        return self.model.sample(mean, logvar, generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors."""
        return {"mean": self.mean, "logvar": self.logvar}
