"""In place of in-batch negatives losses of sentence-transformers, which it needs and extends.

All options are that library's. What is computed here, in memory linear in the batch, is every
direction and partition with cosine or dot product similarities; with hardness weighting or another
similarity its own code computes, in quadratic memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import util
from sentence_transformers.sentence_transformer import losses
from torch import Tensor

from mcfa_fast import ops
from mcfa_fast.chunked import in_chunks

__all__ = ["CachedMultipleNegativesRankingLoss", "MultipleNegativesRankingLoss"]

_NORMALIZES: dict[Any, bool] = {util.cos_sim: True, util.dot_score: False}


class MultipleNegativesRankingLoss(losses.MultipleNegativesRankingLoss):
    """InfoNCE with in-batch negatives as ``losses.MultipleNegativesRankingLoss``.

    Args:
        model: A SentenceTransformer.
        kwargs: Those of the library's class.

    Example:
        >>> import torch
        >>> from mcfa_fast.compat.sentence_transformers import MultipleNegativesRankingLoss
        >>> loss = MultipleNegativesRankingLoss(model=None, scale=1.0)
        >>> loss.compute_loss_from_embeddings([torch.eye(2), torch.eye(2)], labels=None)
        tensor(0.3133)
    """

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Any) -> Tensor:
        """The loss of queries ``[N, D]`` and their documents, each ``[N, D]``."""
        hard = self.hardness_mode is not None and self.hardness_strength > 0
        if hard or self.similarity_fct not in _NORMALIZES or len(embeddings) < 2:
            return super().compute_loss_from_embeddings(embeddings, labels)
        queries, *documents = embeddings
        all_queries, all_documents, offset = queries, documents, 0
        if self.gather_across_devices:
            all_queries = util.all_gather_with_grad(queries)
            all_documents = [util.all_gather_with_grad(rows) for rows in documents]
            offset = util.get_rank() * len(queries)
        own = torch.arange(offset, offset + len(queries), device=queries.device)

        denominators = []
        forward = self._sums(queries, torch.cat(all_documents), own)
        denominators.append(forward.log_sum_exp)
        if "query_to_query" in self.directions:
            denominators.append(self._sums(queries, all_queries, own, excluded=own).log_sum_exp)
        if "doc_to_query" in self.directions:
            denominators.append(self._sums(documents[0], all_queries, own).log_sum_exp)
        if "doc_to_doc" in self.directions:  # all documents of the same query are left out
            denominators += [
                self._sums(documents[0], rows, own, excluded=own).log_sum_exp
                for rows in all_documents
            ]
        if self.partition_mode == "joint":
            denominator = torch.stack(denominators).logsumexp(0)
        else:
            denominator = torch.stack(denominators).mean(0)
        return (denominator - forward.positives).mean()

    def _sums(
        self, rows: Tensor, keys: Tensor, own: Tensor, *, excluded: Tensor | None = None
    ) -> ops.AnchorKeySums:
        return ops.anchor_key(
            rows,
            keys,
            own,
            torch.arange(len(keys), device=keys.device),
            excluded,
            1.0 / self.scale,
            False,
            "out",
            _NORMALIZES[self.similarity_fct],
            -100,
        )


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """The same for batches whose activations do not fit: the model sees a few rows at a time.

    As ``losses.CachedMultipleNegativesRankingLoss``, with exact gradients (Gao et al., 2021): see
    :func:`mcfa_fast.in_chunks`. The loss needs no mini-batches.

    Args:
        model: A SentenceTransformer.
        scale: 1 / τ.
        similarity_fct: ``util.cos_sim`` or ``util.dot_score``; others take quadratic memory.
        mini_batch_size: Rows that the model sees at a time.
        mini_batch_num_tokens: Not supported.
        gather_across_devices, directions, partition_mode, hardness_mode, hardness_strength: See the
            library.
        show_progress_bar: Changes nothing: only the model's batches are left.

    Raises:
        ValueError: If ``mini_batch_size`` is less than 1, or ``mini_batch_num_tokens`` is given.
    """

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: Any = util.cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: Any = ("query_to_doc",),
        partition_mode: Any = "joint",
        show_progress_bar: bool = False,
        hardness_mode: Any = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            gather_across_devices=gather_across_devices,
            directions=directions,
            partition_mode=partition_mode,
            hardness_mode=hardness_mode,
            hardness_strength=hardness_strength,
        )
        if mini_batch_size < 1:
            raise ValueError(
                f"expected `mini_batch_size` to be 1 or more, but got {mini_batch_size}"
            )
        if mini_batch_num_tokens is not None:
            raise ValueError(
                "expected `mini_batch_num_tokens` to be None, for mini-batches are made of rows, "
                f"but got {mini_batch_num_tokens}"
            )
        self.mini_batch_size = mini_batch_size

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Any) -> Tensor:
        """The loss of one batch of features for each column."""
        embeddings = [self._embed(features) for features in sentence_features]
        return self.compute_loss_from_embeddings(embeddings, labels)

    def _embed(self, features: dict[str, Any]) -> Tensor:
        constant = {name: value for name, value in features.items() if not _by_row(value)}
        rows = {name: value for name, value in features.items() if _by_row(value)}
        return in_chunks(
            lambda part: self.model({**constant, **part})["sentence_embedding"],
            rows,
            self.mini_batch_size,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """The options, for model cards."""
        return {**super().get_config_dict(), "mini_batch_size": self.mini_batch_size}


def _by_row(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0
