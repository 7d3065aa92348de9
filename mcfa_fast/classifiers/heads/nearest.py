"""The nearest class in the embedding space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from mcfa_fast.classifiers.heads.base import ClassTable, Head, Monitor
from mcfa_fast.classifiers.heads.whitening import group_means, whitening_matrix
from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.search import LatentIndex
from mcfa_fast.training.config import Options

__all__ = ["NearestHead", "NearestOptions", "embed_rows"]

_CHUNK = 2**19  # features of a chunk: 2 MiB, so that a chunk and its hidden units stay in cache


class NearestOptions(Options):
    """Options of the nearest-class head."""

    prototype_kernel: float | None = Field(
        None,
        gt=0,
        description="Width of the softmax over descriptor similarities by which the image means "
        "of seen classes are added to each class's embedding. None: they are not.",
    )
    whitening: float | None = Field(
        None,
        gt=0,
        description="Embeddings are whitened by how images spread within the seen classes; this "
        "is the shrinkage, in units of the mean variance. None: they are not.",
    )
    seen_gain: float = Field(
        1.0,
        gt=0,
        description="For task 'gzsl': similarities to seen classes are multiplied by this, before "
        "a calibration is subtracted. The larger, the more it depends on the seen classes alone "
        "whether an image is taken for one of theirs.",
    )
    image_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="For task 'gzsl': share of the mean of a seen class's images in its vector, "
        "the rest being its descriptor's embedding, both of unit length.",
    )
    image_prototypes: bool = Field(
        False,
        description="For task 'gzsl': a seen class is as near as the nearer of its descriptor's "
        "embedding and the mean of its images' embeddings, not the former alone.",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="Similarities are divided by this in the softmax that gives probabilities. "
        "None: the temperature of the system's losses, or 1 where it has none.",
    )


class NearestHead(Head):
    r"""The class whose vector has the highest cosine similarity to an image's embedding.

    A class's vector is its prototype :math:`\hat s_c`, of unit length. With ``prototype_kernel``
    :math:`\kappa` it is :math:`\hat s_c + \sum_k w_{ck} \hat m_k`, where :math:`\hat m_k` is the
    mean embedding of the images of seen class k, of unit length, and :math:`w_c` the softmax over
    seen classes k of the cosine of their scaled descriptors over :math:`\kappa`. With ``whitening``
    all embeddings are multiplied by :func:`~mcfa_fast.classifiers.heads.whitening.whitening_matrix`
    first.

    Source:
        Liu et al., Section II-A (nearest class); the options are this library's own.
    """

    name = "nearest"
    Options = NearestOptions
    options: NearestOptions
    whitening: Tensor | None = None
    """The matrix [D, D] that embeddings are multiplied by; None without."""
    _image_means: Any = None

    def observe(self, data: TrainingData) -> None:
        options = self.options
        if options.whitening is None and not self._uses_images():
            return
        embeddings = embed_rows(self.system, data)
        labels = torch.from_numpy(data.labels)
        if options.whitening is not None:
            matrix = whitening_matrix(embeddings, labels, options.whitening)
            self.whitening = matrix.to(embeddings.dtype)
            embeddings = self.whiten(embeddings)
        if self._uses_images():
            classes, rows = labels.unique(return_inverse=True)
            self._image_means = group_means(embeddings, rows, len(classes))

    def fit(self, table: ClassTable, monitor: Monitor | None = None) -> None:
        self.classes = table.all
        vectors = self.whiten(self.system.prototypes(table.semantics[self.classes]))
        classes = self.classes
        kernel = self.options.prototype_kernel
        if kernel is not None:
            vectors = F.normalize(vectors, dim=1) + self._kernel_means(table, kernel)
        if self.options.image_share and self.task == "gzsl":
            vectors = self._with_images(vectors, table)
        if self.options.image_prototypes and self.task == "gzsl":
            vectors = torch.cat([vectors, self._image_means])
            classes = torch.cat([classes, table.seen])
        self.index = LatentIndex(vectors.shape[1])
        self.index.add(vectors, classes, several=True)
        self.gains = torch.ones(len(self.classes))
        if self.task == "gzsl":
            self.gains[torch.isin(self.classes, table.seen)] = self.options.seen_gain

    def scores(self, features: Tensor) -> Tensor:
        return self.similarities(self.system.embed(features))

    def similarities(self, embeddings: Tensor) -> Tensor:
        """Cosines [N, K] of embeddings [N, D], those of seen classes times the gain."""
        scores, _ = self.index.scores(self.whiten(embeddings))
        # Else spare a pass over all scores.
        return scores * self.gains if self.options.seen_gain != 1 else scores

    def whiten(self, embeddings: Tensor) -> Tensor:
        """Embeddings as the index holds them."""
        return embeddings if self.whitening is None else embeddings @ self.whitening.T

    @property
    def probability_scale(self) -> float:
        own = getattr(self.system.config, "temperature", 1.0)
        return 1.0 / (self.options.temperature or own)

    def state_dict(self) -> dict[str, Any]:
        return {"whitening": self.whitening, "image_means": self._image_means}

    def load_state_dict(self, state: Mapping[str, Any], table: ClassTable) -> None:
        self.whitening, self._image_means = state["whitening"], state["image_means"]
        self.fit(table)

    def _uses_images(self) -> bool:
        options = self.options
        return bool(options.prototype_kernel or options.image_share or options.image_prototypes)

    def _with_images(self, vectors: Tensor, table: ClassTable) -> Tensor:
        """Vectors [K, D] of all classes, those of seen ones mixed with their image means."""
        share, seen = self.options.image_share, torch.isin(self.classes, table.seen)
        mixed = F.normalize(vectors, dim=1)
        mixed[seen] = (1 - share) * mixed[seen] + share * F.normalize(self._image_means, dim=1)
        return mixed

    def _kernel_means(self, table: ClassTable, width: float) -> Tensor:
        """Of every class: its neighbours' image means [K, D], those of seen classes."""
        descriptors = F.normalize(self.system.scale_semantics(table.semantics), dim=1)
        similarities = descriptors[self.classes] @ descriptors[table.seen].T
        weights = torch.softmax(similarities / width, dim=1)
        return weights @ F.normalize(self._image_means, dim=1)


def embed_rows(system: Any, data: TrainingData) -> Tensor:
    """Embeddings [n, D] of all training images."""
    size = max(16, _CHUNK // data.features.width)
    return data.features.map(system.embed, size)
