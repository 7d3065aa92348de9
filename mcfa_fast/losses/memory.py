"""VtoV over a memory of past batches."""

from typing import Any, Union

import torch
from torch import Tensor

from mcfa_fast.losses.contrastive import OptionsWithPositives


class CrossBatchMemory(OptionsWithPositives):
    """VtoV of each batch against itself and the last latents of the batches before.

    In training mode, the batch takes the places of the oldest latents, as they are and without a
    gradient, and then meets itself and the others: :func:`mcfa_fast.functional.vtov_loss` with
    references. In evaluation mode the memory is read alone. The memory is a ring of buffers, so
    that it is saved with the model and moves with it; places not filled yet do not count. Nothing
    waits for the device. A backward pass belongs before the next forward pass, which overwrites
    what it needs; else autograd raises.

    Args:
        size: Latents that are kept.
        width: Their number of dimensions D.
        temperature: τ > 0; an :class:`torch.nn.Parameter` is trained with the model.
        positives: ``"out"`` or ``"in"``.
        reduction: ``"mean"`` over anchors with a positive, ``"sum"`` or ``"none"``.
        normalize: Divide each latent by its L2 norm first.
        ignore_index: Instances with this label do not count.
        group: Ranks whose instances are the batch. Each remembers its own, and the memory is that
            of all ranks together.

    Source:
        Wang et al., "Cross-Batch Memory for Embedding Learning", 2020.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> loss = mf.CrossBatchMemory(1024, 16, temperature=0.1)
        >>> for _ in range(2):
        ...     latents = torch.randn(32, 16, requires_grad=True)
        ...     loss(latents, torch.arange(32) % 8).backward()
        >>> int(loss.filled), int(loss.position)
        (64, 64)
    """

    embeddings: Tensor
    """[size, D]"""
    labels: Tensor
    """[size]"""
    position: Tensor
    """Where the next latent goes."""
    filled: Tensor
    """The latents that there are."""

    def __init__(
        self,
        size: int,
        width: int,
        temperature: Union[float, Tensor] = 0.1,
        *,
        reduction: str = "mean",
        **options: Any,
    ):
        super().__init__(temperature, reduction=reduction, **options)
        if size < 1 or width < 0:
            raise ValueError(f"expected `size` >= 1 and `width` >= 0, but got {size} and {width}")
        self.size = size
        self.register_buffer("embeddings", torch.zeros(size, width))
        self.register_buffer("labels", torch.full([size], self.ignore_index))
        self.register_buffer("position", torch.zeros([], dtype=torch.int64))
        self.register_buffer("filled", torch.zeros([], dtype=torch.int64))

    def forward(self, visual: Tensor, labels: Tensor) -> Tensor:
        """The loss of ``visual [N, D]`` with ``labels [N]``, which are remembered."""
        references = self.labels
        if self.training:
            references = self._remember(visual.detach(), labels)
        return self._losses(
            visual, None, labels, True, False, False, self.positives, self.embeddings, references
        ).vtov

    def _remember(self, visual: Tensor, labels: Tensor) -> Tensor:
        """Takes the batch into the memory; the labels with those of the batch left out."""
        kept = min(len(visual), self.size)
        count = len(visual)
        places = torch.arange(count - kept, count, device=self.position.device) + self.position
        places = places % self.size
        self.embeddings.index_copy_(0, places, visual[count - kept :].to(self.embeddings.dtype))
        self.labels.index_copy_(0, places, labels[count - kept :].to(self.labels.dtype))
        self.position.add_(count).remainder_(self.size)
        self.filled.add_(count).clamp_(max=self.size)
        return self.labels.index_fill(0, places, self.ignore_index)

    def extra_repr(self) -> str:
        return f"size={self.size}, width={self.embeddings.shape[1]}, {super().extra_repr()}"
