"""In place of contrastive losses of pytorch-metric-learning, which it needs and extends.

All options are that library's. What is computed here, in memory linear in rows and references, is
the usual case: cosine similarities (its default), pairs by labels. With another distance, or with
pairs given by ``indices_tuple`` (miners), its own code computes, in quadratic memory.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning import losses, reducers
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils import loss_and_miner_utils as pairs
from torch import Tensor

from mcfa_fast import ops

__all__ = ["CrossBatchMemory", "NTXentLoss", "SupConLoss"]

_NO_LABEL = -9223372036854775807  # none is left out, be it -100
_BY_ELEMENT = (reducers.MeanReducer, reducers.AvgNonZeroReducer, reducers.SumReducer)


class _Fused(losses.BaseMetricLossFunction):
    """A loss that is computed here in the usual case, and by its library in all others."""

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Any,
        ref_emb: Tensor,
        ref_labels: Tensor,
        itself: Tensor | None = None,
    ) -> dict[str, Any]:
        """The losses before their reduction, as the library has them.

        Args:
            embeddings: [N, D].
            labels: [N], or None.
            indices_tuple: Pairs; None for those by labels.
            ref_emb: [M, D]; ``embeddings`` themselves if there are no others.
            ref_labels: [M].
            itself: [N] which reference each row is; None if it is none, or the same row.
        """
        distance, same = self.distance, ref_emb is embeddings
        usual = type(distance) is CosineSimilarity and distance.p == 2 and distance.power == 1
        if usual and indices_tuple is None and labels is not None and labels.dim() == 1:
            sums = ops.anchor_key(
                embeddings,
                None if same else ref_emb,
                labels,
                None if same else ref_labels,
                None if same else itself,
                self.temperature,
                False,
                "out",
                True,
                _NO_LABEL,
            )
            # None without a positive or without a negative, nor with but one of each.
            positives = sums.counts.sum()
            others = len(ref_labels) - (same or itself is not None)
            numbers = torch.stack([positives, len(labels) * others - positives])
            if not bool((numbers > 0).all() & (numbers > 1).any()):
                return self.zero_losses()
            result = self._of_sums(sums)
            if result is not None:
                losses, indices, kind = result
                return {"loss": {"losses": losses, "indices": indices, "reduction_type": kind}}
        if itself is not None:
            every = pairs.get_all_pairs_indices(labels, ref_labels)
            indices_tuple = pairs.remove_self_comparisons(every, itself, len(ref_labels))
        return super().compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    def _of_sums(self, sums: ops.AnchorKeySums) -> tuple[Tensor, Any, str] | None:
        raise NotImplementedError


class SupConLoss(_Fused, losses.SupConLoss):
    """Supervised contrastive loss (Khosla et al., 2020, Eq. 2) as ``losses.SupConLoss``.

    The mean over anchors whose loss is above 0, by the library's default reducer; 0 for a batch
    without positives or without negatives.

    Args:
        temperature: τ > 0.
        kwargs: Those of the library's class.

    Example:
        >>> import torch
        >>> from mcfa_fast.compat.pytorch_metric_learning import SupConLoss
        >>> SupConLoss(temperature=1.0)(torch.eye(3), torch.tensor([0, 0, 1]))
        tensor(0.6931)
    """

    def _of_sums(self, sums: ops.AnchorKeySums) -> tuple[Tensor, Any, str] | None:
        means = sums.positives / sums.counts.clamp(min=1)
        losses = torch.where(sums.counts > 0, sums.log_sum_exp - means, 0.0)
        return losses, torch.arange(len(losses), device=losses.device), "element"


class NTXentLoss(_Fused, losses.NTXentLoss):
    """NT-Xent as ``losses.NTXentLoss``: each positive pair against the anchor's negatives.

    Computed here where no anchor has more than one positive, as with two views of each sample or
    with the keys of MoCo, and reduced to a mean or sum; with more, whose other positives the
    library leaves out of each pair's denominator, its own code computes.

    Args:
        temperature: τ > 0.
        kwargs: Those of the library's class.

    Example:
        >>> import torch
        >>> from mcfa_fast.compat.pytorch_metric_learning import NTXentLoss
        >>> NTXentLoss(temperature=1.0)(torch.eye(4), torch.tensor([0, 0, 1, 1]))
        tensor(1.0986)
    """

    def _of_sums(self, sums: ops.AnchorKeySums) -> tuple[Tensor, Any, str] | None:
        if type(self.reducer) not in _BY_ELEMENT or bool((sums.counts > 1).any()):
            return None
        (anchors,) = sums.counts.nonzero(as_tuple=True)
        # Those reducers do not look at which pairs the losses are of.
        return (sums.log_sum_exp - sums.positives)[anchors], (anchors, anchors), "pos_pair"


class CrossBatchMemory(losses.CrossBatchMemory):
    """The library's memory of embeddings (Wang et al., 2020) around a loss of this module.

    Rows are contrasted with everything in the memory but themselves. The library lists all those
    pairs; here they are not, unless there is a miner, ``indices_tuple`` or ``enqueue_mask``.

    Args:
        loss: A loss of this module; those of the library behave as in its own class.
        embedding_size: Width D.
        memory_size: Rows of the memory.
        kwargs: Those of the library's class.

    Example:
        >>> import torch
        >>> from mcfa_fast.compat.pytorch_metric_learning import CrossBatchMemory, SupConLoss
        >>> loss = CrossBatchMemory(SupConLoss(temperature=1.0), embedding_size=3, memory_size=8)
        >>> loss(torch.eye(3), torch.tensor([0, 0, 1]))
        tensor(0.6931)
    """

    embedding_memory: Tensor
    label_memory: Tensor

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Any = None,
        enqueue_mask: Tensor | None = None,
    ) -> Tensor:
        """Enqueue the rows ``[N, D]``, then their loss against the memory."""
        by_labels = indices_tuple is None and enqueue_mask is None and self.miner is None
        if not (by_labels and isinstance(self.loss, _Fused)):
            return super().forward(embeddings, labels, indices_tuple, enqueue_mask)
        if len(embeddings) > self.memory_size:
            raise ValueError(
                f"expected at most memory_size = {self.memory_size} `embeddings`, "
                f"but got {len(embeddings)}"
            )
        self.reset_stats()
        self.loss.reset_stats()
        labels = labels.to(embeddings.device)
        self.embedding_memory = self.embedding_memory.to(embeddings)
        self.label_memory = self.label_memory.to(labels)
        self.add_to_memory(embeddings, labels, len(embeddings))
        filled = self.memory_size if self.has_been_filled else self.queue_idx
        result = self.loss.compute_loss(
            embeddings,
            labels,
            None,
            self.embedding_memory[:filled],
            self.label_memory[:filled],
            self.curr_batch_idx,
        )
        self.loss.add_embedding_regularization_to_loss_dict(result, embeddings)
        return self.loss.reducer(result, embeddings, labels)
