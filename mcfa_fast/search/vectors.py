"""Vectors and ids that callers pass to an index, checked, and what an index makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Vectors", "as_ids", "as_vectors", "first_of_each_id"]

# Lengths in this range neither overflow nor vanish in float32 products with unit vectors.
_SHORTEST, _LONGEST = 2.0**-40, 2.0**40
# Squared distances of vectors up to this length do not overflow.
_LONGEST_SQUARED = 2.0**62


@dataclass(frozen=True, eq=False)
class Vectors:
    """Finite float32 rows in main memory.

    Attributes:
        values: [N, D], contiguous; shares memory with the caller's tensor where that is possible.
        norms: their lengths [N].
        given: the rows as they were given, in main memory.
        are_safe: whether products of all rows with unit vectors stay in range of float32.
    """

    values: Tensor
    norms: Tensor
    given: Tensor
    are_safe: bool

    def unit(self) -> Tensor:
        """The rows divided by their lengths; zero rows stay zero."""
        if self.are_safe:
            return self.values / self.norms[:, None]
        # In float64 and scaled first, so that the length of a huge or tiny row is still exact.
        values = self.given.double()
        values = values / values.abs().amax(dim=1, keepdim=True).clamp_(min=1e-300)
        norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
        return (values / norms.clamp_(min=1.0)).float()

    def safe(self) -> Tensor:
        """Rows of the same directions whose products with unit vectors stay in range."""
        return self.values if self.are_safe else self.unit()

    def divide(self, products: Tensor) -> Tensor:
        """Cosines, of the products [N, J] of :meth:`safe` rows with unit vectors."""
        return products / self.norms.unsqueeze(1) if self.are_safe else products


def as_vectors(name: str, values: Tensor, dim: int, *, for_distances: bool) -> Vectors:
    """Check vectors [N, dim] of any floating type, on any device.

    Args:
        name: what they are called in errors.
        values: the vectors.
        dim: their expected length D.
        for_distances: whether squared distances of them are to be finite in float32; else only
            their directions matter, and float64 values may be beyond the range of float32.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name}: expected a floating tensor, got {kind}")
    if values.ndim != 2 or values.shape[1] != dim:
        raise ValueError(f"{name}: expected [rows, {dim}], got {tuple(values.shape)}")
    given = values.detach().cpu()
    single = given.float().contiguous()
    norms = torch.linalg.vector_norm(single, dim=1)
    are_safe = True
    if len(norms):
        shortest, longest = torch.aminmax(norms)
        are_safe = shortest.item() >= _SHORTEST and longest.item() <= _LONGEST
    # Lengths in that range say that all values are finite.
    if not are_safe:
        if not torch.isfinite(single if for_distances else given).all():
            raise ValueError(f"{name}: expected finite float32 values, got NaN or infinity")
        if for_distances and not longest.item() <= _LONGEST_SQUARED:
            raise ValueError(
                f"{name}: expected vectors no longer than {_LONGEST_SQUARED:.1e}, beyond which "
                f"squared distances overflow, got one of length "
                f"{torch.linalg.vector_norm(single.double(), dim=1).max().item():.1e}"
            )
    return Vectors(single, norms, given, are_safe)


def as_ids(ids: Tensor) -> Tensor:
    """Check ids: a vector of integers, 0 or more; returned as int64 in main memory."""
    if not isinstance(ids, Tensor) or ids.dtype.is_floating_point or ids.dtype == torch.bool:
        kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"ids: expected an integer tensor, got {kind}")
    if ids.ndim != 1:
        raise ValueError(f"ids: expected a vector, got shape {tuple(ids.shape)}")
    # FAISS answers "nothing found" with id -1, so negative ids would be ambiguous.
    if ids.numel() and ids.min() < 0:
        raise ValueError(f"ids: expected 0 or more, got {int(ids.min())}")
    return ids.detach().to("cpu", torch.int64).contiguous()


def first_of_each_id(scores: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first k different ids of every row.

    Args:
        scores: [N, J], best first.
        ids: [N, J] id of every score; ids may repeat.
        k: how many are wanted.

    Returns:
        Which rows [N] have k different ids, and of those rows the scores and ids [N', k].

    Example:
        >>> ids = torch.tensor([[4, 4, 6, 5], [4, 4, 4, 4]])
        >>> complete, _, first = first_of_each_id(torch.zeros(2, 4), ids, k=2)
        >>> complete.tolist(), first.tolist()
        ([True, False], [[4, 6]])
    """
    ordered, order = ids.sort(dim=1, stable=True)
    first = torch.ones_like(ids, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.zeros_like(first).scatter_(1, order, first)
    taken = first & (first.cumsum(dim=1) <= k)
    complete = first.sum(dim=1) >= k
    taken &= complete[:, None]
    return complete, scores[taken].view(-1, k), ids[taken].view(-1, k)
