"""In place of the loss of open_clip (open_clip_torch)."""

from __future__ import annotations

from typing import Optional, Union

import torch
from torch import Tensor, nn

from mcfa_fast import ops
from mcfa_fast.compat._gather import gathered

__all__ = ["ClipLoss"]


class ClipLoss(nn.Module):
    r"""CLIP's symmetric loss of pairs of images and texts, in linear memory.

    The mean over pairs and over both directions of :math:`\log \sum_j e^{s_{ij}} - s_{ii}` with
    :math:`s_{ij} = \text{scale} \cdot x_i \cdot t_j` (Radford et al., "Learning Transferable Visual
    Models From Natural Language Supervision", 2021, Fig. 3). Features are used as they are; the
    models of open_clip normalise them.

    With more than one rank the loss is what open_clip computes on each: over all pairs of the
    global batch, or with ``local_loss`` over this rank's rows against all columns. Its gradients
    fit DistributedDataParallel, which averages, with ``gather_with_grad``; without, a rank's
    columns on other ranks get no gradient. :func:`mcfa_fast.functional.clip_loss` with a ``group``
    has the whole gradient at a fraction of the work.

    Args:
        local_loss: Rows of this rank only.
        gather_with_grad: Send gradients of gathered features back to their ranks.
        cache_labels: Changes nothing: there are no labels to keep.
        rank: This process's rank.
        world_size: Number of ranks, all with as many rows.
        use_horovod: Not supported.

    Raises:
        ValueError: If ``use_horovod``.

    Example:
        >>> import torch
        >>> from mcfa_fast.compat.open_clip import ClipLoss
        >>> images = torch.nn.functional.normalize(torch.randn(8, 16), dim=1)
        >>> ClipLoss()(images, images, logit_scale=torch.tensor(100.0)).item() < 0.01
        True
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ):
        super().__init__()
        if use_horovod:
            raise ValueError("expected `use_horovod` to be False, for torch.distributed is used")
        self.local_loss = local_loss
        self.gather_with_grad = gather_with_grad
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Union[float, Tensor],
        logit_bias: Optional[Tensor] = None,
        output_dict: bool = False,
    ) -> Union[Tensor, dict[str, Tensor]]:
        """The loss of ``image_features [N, D]`` and ``text_features [N, D]``.

        Args:
            image_features: A row for each pair.
            text_features: A row for each pair.
            logit_scale: What similarities are multiplied by, a number or a 0-dim tensor.
            logit_bias: Changes nothing, as in every softmax; its gradient is 0.
            output_dict: Return ``{"contrastive_loss": loss}``.
        """
        if image_features.shape != text_features.shape:
            raise ValueError(
                "expected `image_features` and `text_features` of one shape [N, D], but got "
                f"{list(image_features.shape)} and {list(text_features.shape)}"
            )
        temperature = 1.0 / logit_scale
        if self.world_size > 1 and self.local_loss:
            loss = self._local_loss(image_features, text_features, temperature)
        else:
            loss = _symmetric(self._all(image_features), self._all(text_features), temperature)
        if logit_bias is not None:
            loss = loss + 0.0 * logit_bias.sum()
        return {"contrastive_loss": loss} if output_dict else loss

    def _all(self, rows: Tensor) -> Tensor:
        if self.world_size == 1:
            return rows
        own = None if self.local_loss else self.rank
        return gathered(rows, with_grad=self.gather_with_grad, own=own)

    def _local_loss(
        self, images: Tensor, texts: Tensor, temperature: Union[float, Tensor]
    ) -> Tensor:
        all_images, all_texts = self._all(images), self._all(texts)
        columns = torch.arange(len(all_images), device=images.device)
        own = columns[len(images) * self.rank :][: len(images)]

        def direction(rows: Tensor, others: Tensor) -> Tensor:
            sums = ops.anchor_key(
                rows, others, own, columns, None, temperature, False, "out", False, -100
            )
            return (sums.log_sum_exp - sums.positives).mean()

        return (direction(images, all_texts) + direction(texts, all_images)) / 2


def _symmetric(images: Tensor, texts: Tensor, temperature: Union[float, Tensor]) -> Tensor:
    sums = ops.anchor_key(images, texts, None, None, None, temperature, True, "out", False, -100)
    rows = sums.log_sum_exp - sums.positives
    columns = sums.key_log_sum_exp - sums.key_positives
    return (rows.mean() + columns.mean()) / 2
