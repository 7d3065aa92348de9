"""Latent Gaussians of images and class descriptors, and the training latents drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.models.mcfa import MCFA

__all__ = ["LatentBank", "class_latents", "encode_images", "group_means", "image_latents"]

_ROWS_PER_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class LatentBank:
    """Gaussians in the latent space, with how many latents to draw from each.

    A classifier's training set is drawn from it, once or afresh in every epoch. All tensors are in
    main memory.

    Attributes:
        mean: [R, D].
        logvar: [R, D].
        labels: [R] class index of every Gaussian.
        counts: [R] latents to draw from it.
    """

    mean: Tensor
    logvar: Tensor
    labels: Tensor
    counts: Tensor

    def join(self, other: LatentBank) -> LatentBank:
        """Both banks' Gaussians, this one's first."""
        return LatentBank(
            torch.cat([self.mean, other.mean]),
            torch.cat([self.logvar, other.logvar]),
            torch.cat([self.labels, other.labels]),
            torch.cat([self.counts, other.counts]),
        )

    def draw(self, model: MCFA, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents [M, D] and their class indices [M], where M is the sum of the counts.

        The model's options say how noise is drawn; its weights are not used.
        """
        mean = self.mean.repeat_interleave(self.counts, dim=0)
        logvar = self.logvar.repeat_interleave(self.counts, dim=0)
        latents = model.sample(mean, logvar, generator)
        return latents, self.labels.repeat_interleave(self.counts)


@torch.no_grad()
def encode_images(model: MCFA, features: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and log-variance [N, D] of raw features [N, F], in main memory.

    The rows go through the model's device in chunks, so `features` may be a memory map of any
    size.

    Example:
        >>> from mcfa_fast.config import MCFAConfig
        >>> model = MCFA(8, 5, MCFAConfig(latent_features=4))
        >>> mean, logvar = encode_images(model, np.zeros((3, 8), dtype=np.float16))
        >>> mean.shape
        torch.Size([3, 4])
    """
    parameter = next(model.parameters())
    encoded = []
    for rows in row_chunks(len(features), _ROWS_PER_CHUNK):
        # The copy keeps PyTorch from warning about read-only memory maps.
        chunk = torch.from_numpy(np.array(features[rows]))
        mean, logvar = model.encode_visual(chunk.to(parameter.device, parameter.dtype))
        encoded.append((mean.cpu(), logvar.cpu()))
    means, logvars = zip(*encoded, strict=True)
    return torch.cat(means), torch.cat(logvars)


def image_latents(
    model: MCFA,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    per_class: int,
    choice: Literal["random", "first"],
    generator: torch.Generator,
) -> LatentBank:
    """Bank of `per_class` latents for every class of the given images.

    A class with more images is represented by `per_class` of them, the first ones or a random
    choice; a class with fewer has them repeated in turn.

    Args:
        model: trained model.
        features: raw features [N, F].
        labels: class index [N] of every row.
        per_class: latents per class, 1 or more.
        choice: which images of a class to take.
        generator: source of the random choice.

    Example:
        >>> from mcfa_fast.config import MCFAConfig
        >>> model = MCFA(8, 5, MCFAConfig(latent_features=4))
        >>> features, labels = np.zeros((5, 8)), np.array([3, 3, 3, 7, 7])
        >>> bank = image_latents(
        ...     model, features, labels, per_class=3, choice="first", generator=torch.Generator()
        ... )
        >>> bank.labels.tolist(), bank.counts.tolist()
        ([3, 3, 3, 7, 7], [1, 1, 1, 2, 1])
    """
    rows, counts = [], []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if choice == "random":
            own = own[torch.randperm(len(own), generator=generator).numpy()]
        own = own[:per_class]
        rows.append(own)
        counts.append(per_class // len(own) + (np.arange(len(own)) < per_class % len(own)))
    chosen = np.concatenate(rows)
    mean, logvar = encode_images(model, features[chosen])
    return LatentBank(
        mean,
        logvar,
        labels=torch.from_numpy(labels[chosen]),
        counts=torch.from_numpy(np.concatenate(counts)),
    )


@torch.no_grad()
def class_latents(model: MCFA, semantics: Tensor, classes: Tensor, *, per_class: int) -> LatentBank:
    """Bank of `per_class` latents for each of the given classes, from their descriptors.

    Args:
        model: trained model.
        semantics: raw descriptors [C, A] of all classes.
        classes: indices [K] of the classes wanted.
        per_class: latents per class.
    """
    parameter = next(model.parameters())
    mean, logvar = model.encode_semantic(semantics[classes].to(parameter.device, parameter.dtype))
    return LatentBank(
        mean.cpu(), logvar.cpu(), labels=classes, counts=torch.full_like(classes, per_class)
    )


def group_means(rows: Tensor, groups: Tensor, count: int) -> Tensor:
    """Mean [count, D] of the rows [N, D] of each group; `groups` [N] numbers them."""
    sums = rows.new_zeros(count, rows.shape[1]).index_add_(0, groups, rows)
    return sums / groups.bincount(minlength=count)[:, None]
