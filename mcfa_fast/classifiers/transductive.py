"""Classification of a set of images together: their own structure corrects the scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from mcfa_fast.classifiers.heads.whitening import whitening_matrix
from mcfa_fast.classifiers.transductive_inputs import (
    Labelled,
    TransductionConfig,
    as_class_sizes,
    as_groups,
    as_scores,
)
from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.linear import linear
from mcfa_fast.search.neighbours import nearest_others

__all__ = ["ImageSet", "log_posteriors", "transduce"]

_VALUES = 2**22  # floats of a chunk
_BALANCING_STEPS = 20
_FEWEST = 1e-6  # images that a class is taken to have at least, and the share of a class
_SMALLEST = 1e-6  # of the scatter about class means, as a share of the scatter about all


def transduce(
    scores: ArrayLike | Tensor,
    features: ArrayLike | Tensor | FeatureRows,
    config: TransductionConfig | None = None,
    *,
    labelled: Labelled | None = None,
    classes: ArrayLike | None = None,
    class_sizes: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    r"""Posterior probabilities [N, K] of a whole set of unlabelled images, from scores of any kind.

    The initial posteriors are a softmax of the scores, balanced over the classes:

    .. math:: \log p^0_{ik} = s_{ik} / (T\,\sigma) + u_i + v_k,

    with the offsets :math:`v` of unbalanced Sinkhorn steps and the scores' spread :math:`\sigma`.
    Then, for a number of rounds, with unit features :math:`z` that are centred and, given labelled
    images, whitened within classes,

    .. math::
        \log p_{ik} = -\frac{\beta D}{2} \frac{|z_i - m_k|^2}{\sigma^2_z}
            + \frac{\nu}{|N_i|} \sum_{j \in N_i} p_{jk} + \alpha \log p^0_{ik} + c_i,

    where :math:`m_k` are the means weighted by the posteriors, :math:`\sigma^2_z` the mean squared
    distance from them, :math:`D` the effective dimension of the features and :math:`N_i` the exact
    nearest neighbours by cosine. Results are the same bits each time.

    Args:
        scores: [N, K], higher is better; any scale, also log-probabilities.
        features: [N, F] of the same images, of any encoder.
        config: strengths; None are the defaults.
        labelled: images with labels. Those of one of the `classes` take part with their posteriors
            fixed; the scatter of all about the means of their classes is what whitens.
        classes: label [K] of every column; None is 0..K-1.
        class_sizes: how many images of each class there are, up to a factor [K]; None is as many of
            each.
        groups: number [K] of the group of each column. The initial posteriors say how many images a
            group has, and only within groups classes are balanced; None is one group of all.
        progress: called as ``progress(done, all)`` with numbers of images, of the search for
            neighbours and of every round.

    Raises:
        TypeError, ValueError: on arguments of wrong types or shapes, or values that are not finite.

    Source:
        Zanella, Gérin and Ben Ayed, "Boosting vision-language models with transduction"
        (TransCLIP), 2024, Section 3; El Khoury et al., "Enhancing remote sensing vision-language
        models for zero-shot scene classification" (RS-TransCLIP), 2024. Balancing: Cuturi,
        "Sinkhorn distances", 2013, with marginals relaxed as in Chizat et al., "Scaling algorithms
        for unbalanced optimal transport problems", 2018. Whitening, the effective dimension and
        the neighbours' mean in place of their sum are ours.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> scores = [[2.0, 0.0], [0.4, 0.5], [0.0, 2.0], [0.0, 2.0]]  # wrong about the second
        >>> transduce(scores, features, TransductionConfig(neighbours=1)).argmax(axis=1)
        array([0, 0, 1, 1])
    """
    found = log_posteriors(
        scores,
        features,
        config,
        labelled=labelled,
        classes=classes,
        class_sizes=class_sizes,
        groups=groups,
        progress=progress,
    )
    return np.exp(found, out=found)


def log_posteriors(
    scores: ArrayLike | Tensor,
    features: ArrayLike | Tensor | FeatureRows,
    config: TransductionConfig | None = None,
    *,
    labelled: Labelled | None = None,
    classes: ArrayLike | None = None,
    class_sizes: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Logarithms [N, K] of what :func:`transduce` gives, which tell more where it rounds to 0.

    Args:
        scores, features, config, labelled, classes, class_sizes, groups, progress: see there.
    """
    config = TransductionConfig() if config is None else config
    initial = as_scores(scores)
    count, columns = initial.shape
    labels = as_groups(classes, columns, "classes")
    if not count:
        return initial.numpy()
    images = ImageSet(features, labelled, labels)
    if images.count != count:
        raise ValueError(
            f"features: expected {count} rows, one per row of scores, got {images.count}"
        )
    sizes, groups = as_class_sizes(class_sizes, columns), as_groups(groups, columns)
    return images.log_posteriors(initial, sizes, groups, config, progress).numpy()


class ImageSet:
    """A set of images, with what does not depend on their scores, such as their neighbours.

    Args:
        features: [N, F].
        labelled: see :func:`transduce`.
        classes: distinct labels [K].
    """

    def __init__(
        self,
        features: ArrayLike | Tensor | FeatureRows,
        labelled: Labelled | None,
        classes: np.ndarray,
    ) -> None:
        self._rows = FeatureRows.of(features)
        self._labelled = None if labelled is None else labelled.checked(self._rows.width)
        self._fixed = np.empty(0, np.int64)
        if labelled is not None:
            self._fixed = np.flatnonzero(np.isin(labelled.labels, classes))
        self._known = torch.from_numpy(_columns(classes, labelled, self._fixed))
        self._prepared: dict[float | None, _Prepared] = {}
        self._neighbours: dict[tuple[float | None, int], Tensor] = {}

    @property
    def count(self) -> int:
        """Number N of images."""
        return len(self._rows)

    def log_posteriors(
        self,
        scores: Tensor,
        sizes: Tensor,
        groups: np.ndarray,
        config: TransductionConfig,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Log-posteriors [N, K] from scores [N, K], which are overwritten."""
        initial = _balance(_scaled(scores, config.temperature), sizes, groups, config)
        if not config.rounds:
            return initial
        if config.whitening not in self._prepared:
            self._prepared[config.whitening] = _prepare(
                self._rows, self._labelled, self._fixed, config.whitening
            )
        prepared = self._prepared[config.whitening]
        total, done = (1 + config.rounds) * self.count, 0

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            if progress is not None:
                progress(done, total)

        k = min(config.neighbours, len(prepared.vectors) - 1)
        neighbours = None
        if k > 0 and config.neighbour_weight:
            key = config.whitening, k
            if key not in self._neighbours:
                self._neighbours[key] = nearest_others(
                    prepared.vectors, k, advance, wanted=self.count
                )
            neighbours = self._neighbours[key]
        return _refine(initial, prepared, self._known, neighbours, config, advance)


def _columns(labels: np.ndarray, labelled: Labelled | None, fixed: np.ndarray) -> np.ndarray:
    """Column of every labelled row that takes part."""
    if labelled is None:
        return fixed
    order = np.argsort(labels)
    return order[np.searchsorted(labels, labelled.labels[fixed], sorter=order)]


def _scaled(scores: Tensor, temperature: float) -> Tensor:
    """The scores in units of their spread about the means of rows and columns, in place."""
    scores -= scores.amax(dim=1, keepdim=True)
    rows, columns = scores.shape
    column_means = scores.mean(dim=0, dtype=torch.float64)
    total = 0.0
    for part in row_chunks(rows, max(1, _VALUES // columns)):
        residuals = scores[part].double() - column_means
        residuals -= residuals.mean(dim=1, keepdim=True)
        total += float(residuals.square().sum())
    spread = (total / scores.numel()) ** 0.5
    return scores.div_(temperature * spread) if spread > 0 else scores


def _balance(
    scores: Tensor, sizes: Tensor, groups: np.ndarray, config: TransductionConfig
) -> Tensor:
    """Log-posteriors of scores, in place, whose means over the images are drawn to the sizes."""
    offsets = torch.zeros(scores.shape[1], dtype=torch.float64)
    means = _class_means(scores, offsets)
    shares = torch.zeros_like(sizes)
    for group in np.unique(groups):
        own = torch.from_numpy(groups == group)
        shares[own] = sizes[own] / sizes[own].sum() * means[own].sum()
    targets = shares.clamp_(min=_FEWEST).log()
    for _ in range(_BALANCING_STEPS if config.balance else 0):
        offsets = config.balance * (targets - means.clamp(min=_FEWEST).log() + offsets)
        means = _class_means(scores, offsets)
    for part in row_chunks(len(scores), max(1, _VALUES // scores.shape[1])):
        scores[part] = (scores[part] + offsets.float()).log_softmax(dim=1)
    return scores


def _class_means(scores: Tensor, offsets: Tensor) -> Tensor:
    """Mean posterior [K] of every class."""
    total = torch.zeros_like(offsets)
    for part in row_chunks(len(scores), max(1, _VALUES // scores.shape[1])):
        total += (scores[part] + offsets.float()).softmax(dim=1).sum(dim=0, dtype=torch.float64)
    return total / len(scores)


class _Prepared(NamedTuple):
    """Unit vectors of the images, followed by those of labelled images that take part."""

    vectors: Tensor
    dimension: float
    """Their effective dimension."""


def _prepare(
    rows: FeatureRows, labelled: Labelled | None, fixed: np.ndarray, whitening: float | None
) -> _Prepared:
    count = len(rows)
    vectors = torch.empty(count + len(fixed), rows.width)
    matrix = None
    vectors[:count] = rows.map(lambda chunk: F.normalize(chunk, dim=1))
    if labelled is not None:
        units = labelled.features.map(lambda chunk: F.normalize(chunk, dim=1))
        vectors[count:] = units[torch.from_numpy(fixed)]
        if whitening is not None:
            labels = torch.from_numpy(labelled.labels)
            matrix = whitening_matrix(units, labels, whitening).float()
    mean = vectors.mean(dim=0, dtype=torch.float64).float()
    moments = torch.zeros(rows.width, rows.width, dtype=torch.float64)
    for part in row_chunks(len(vectors), max(1, _VALUES // rows.width)):
        centred = vectors[part] - mean
        if matrix is not None:
            centred = linear(centred, matrix)
        # Rows that rounding alone tells from the mean are not blown up to unit length.
        vectors[part] = F.normalize(centred, dim=1, eps=1e-6)
        moments += linear(vectors[part].T, vectors[part].T)
    square = float(moments.square().sum())
    return _Prepared(vectors, float(moments.trace()) ** 2 / square if square > 0 else 1.0)


def _refine(
    initial: Tensor,
    prepared: _Prepared,
    known: Tensor,
    neighbours: Tensor | None,
    config: TransductionConfig,
    advance: Callable[[int], None],
) -> Tensor:
    """The log-posteriors after all rounds, from the initial ones."""
    vectors, (count, columns) = prepared.vectors, initial.shape
    k = 1 if neighbours is None else neighbours.shape[1]
    posteriors = torch.zeros(len(vectors), columns)
    torch.exp(initial, out=posteriors[:count])
    posteriors[count:][torch.arange(len(known)), known] = 1.0
    following = posteriors.clone()
    squares = float(vectors.square().sum(dtype=torch.float64))
    result = initial
    for number in range(config.rounds):
        maps = _likelihood(vectors, posteriors, squares, config.likelihood * prepared.dimension)
        if number == config.rounds - 1:
            result = torch.empty_like(initial)
        for part in row_chunks(count, max(1, _VALUES // (columns * k))):
            logits = linear(vectors[part], *maps)
            logits.add_(initial[part], alpha=config.initial)
            if neighbours is not None:
                near = posteriors[neighbours[part].flatten()].unflatten(0, (-1, k)).mean(dim=1)
                logits.add_(near, alpha=config.neighbour_weight)
            if number == config.rounds - 1:
                result[part] = logits.log_softmax(dim=1)
            else:
                torch.softmax(logits, dim=1, out=following[part])
            advance(part.stop - part.start)
        posteriors, following = following, posteriors
    return result


def _likelihood(
    vectors: Tensor, posteriors: Tensor, squares: float, strength: float
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the Gaussian log-likelihoods of the classes, up to a term per image."""
    sums = torch.zeros(posteriors.shape[1], vectors.shape[1], dtype=torch.float64)
    sizes = torch.zeros(len(sums), dtype=torch.float64)
    for part in row_chunks(len(vectors), max(1, _VALUES // vectors.shape[1])):
        sums += linear(posteriors[part].T, vectors[part].T)
        sizes += posteriors[part].sum(dim=0, dtype=torch.float64)
    means = sums / (sizes + _FEWEST)[:, None]
    lengths = means.square().sum(dim=1)
    variance = max((squares - float(sizes @ lengths)) / len(vectors), _SMALLEST)
    precision = strength / variance
    return (precision * means).float(), (-precision / 2 * lengths).float()
