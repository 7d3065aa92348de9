"""The whole chain from raw features to scores as one scriptable module."""

import copy
from typing import List

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.classifiers.heads import EnsembleHead, NearestHead, ScoresHead, SoftmaxHead
from mcfa_fast.export.finite import scores
from mcfa_fast.systems.base import Exports, ExportsScores
from mcfa_fast.systems.scaling import Scaler

__all__ = ["DeployedClassifier"]


class _Columns(nn.Module):
    """Some of the columns of scores."""

    columns: Tensor

    def __init__(self, columns: Tensor) -> None:
        super().__init__()
        self.register_buffer("columns", columns)

    def forward(self, scores: Tensor) -> Tensor:
        return scores.index_select(1, self.columns)


class _Softmax(nn.Module):
    """Log-probabilities [N, K] of embeddings [N, D]."""

    def __init__(self, head: SoftmaxHead) -> None:
        super().__init__()
        self.linear = copy.deepcopy(head.layer.linear)

    def forward(self, embeddings: Tensor) -> Tensor:
        return F.log_softmax(self.linear(embeddings), dim=1)


class _Whiten(nn.Module):
    """Embeddings [N, D] times a matrix [D, D]."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.clone())

    def forward(self, embeddings: Tensor) -> Tensor:
        return F.linear(embeddings, self.matrix)


class _Nearest(nn.Module):
    """Cosine similarities [N, K] of embeddings [N, D] to the nearest of each class's vectors, times
    each class's gain."""

    vectors: Tensor

    def __init__(self, head: NearestHead, classes: Tensor) -> None:
        super().__init__()
        self.whiten = nn.Identity() if head.whitening is None else _Whiten(head.whitening)
        vectors, owners = head.index.contents()
        own = [vectors[owners == index] for index in classes]
        most = max(map(len, own))
        # [P, K, D]: a class with fewer vectors than others has its first repeated.
        padded = [torch.cat([part, part[:1].expand(most - len(part), -1)]) for part in own]
        gains = head.gains[torch.searchsorted(head.classes, classes)]
        self.register_buffer("vectors", torch.stack(padded, dim=1) * gains[:, None])

    def forward(self, embeddings: Tensor) -> Tensor:
        # In float64, as LatentIndex does, so that the norm of a large or tiny vector is exact.
        units = F.normalize(self.whiten(embeddings).double(), dim=1, eps=1e-300).float()
        nearest = F.linear(units, self.vectors[0])
        for k in range(1, self.vectors.shape[0]):
            nearest = torch.maximum(nearest, F.linear(units, self.vectors[k]))
        return nearest


class _Ensemble(nn.Module):
    """Log-probabilities [N, K] of both combined, see
    :func:`mcfa_fast.classifiers.heads.ensemble.combine`."""

    def __init__(self, head: EnsembleHead, weight: float) -> None:
        super().__init__()
        self.softmax, self.nearest = _Softmax(head.softmax), _Nearest(head.nearest, head.classes)
        self.weight, self.sharpness = weight, head.sharpness

    def forward(self, embeddings: Tensor) -> Tensor:
        similarities = self.sharpness * self.nearest(embeddings)
        return F.log_softmax(
            (1.0 - self.weight) * self.softmax(embeddings) + self.weight * similarities, dim=1
        )


class DeployedClassifier(nn.Module):
    r"""Scaler, system, head and calibration: what a deployed file computes.

    The scores are those of :meth:`ZeroShotClassifier.decision_function` over the classifier's
    default candidates, in float32, less the calibration for seen classes. It holds copies of the
    weights, on the CPU, and can be scripted, exported and traced.

    Args:
        classifier: a fitted classifier; the head that answers and the calibration in force are
            taken.

    Attributes:
        features: raw visual features F.
        class_names: names of the K columns of scores. (A list, for TorchScript.)

    Raises:
        NotFittedError: before the classifier was fitted.
        ValueError: when the system or its head cannot leave the library, scores are not finite, or
            the classifier computes something else than this module, by a check on some made-up
            features.

    Example:
        >>> from mcfa_fast import ZeroShotClassifier, data
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("eszsl").fit(
        ...     digits.features[rows], digits.labels[rows], digits.semantics
        ... )
        >>> module = torch.jit.script(DeployedClassifier(classifier))
        >>> module(torch.from_numpy(digits.features[:5]).float()).shape
        torch.Size([5, 3])
        >>> module.class_names
        ['class_3', 'class_4', 'class_8']
    """

    offset: Tensor
    features: int
    class_names: List[str]

    def __init__(self, classifier: ZeroShotClassifier) -> None:
        super().__init__()
        check_is_fitted(classifier, "fitted_")
        self.encoder, self.head = _encoder(classifier), _head(classifier)
        classes = classifier.classes_
        seen = np.isin(classes, classifier.seen_classes_)
        offset = (classifier.effective_calibration * seen).astype(np.float32)
        self.register_buffer("offset", torch.from_numpy(offset))
        self.features = classifier.n_features_in_
        self.class_names = [classifier.class_names_[index] for index in classes]
        for part in self.modules():
            # A buffer that is left out of the state would be a constant in an archive of
            # torch.export, where constants may be pickled and are refused.
            for name, buffer in list(part.named_buffers(recurse=False)):
                part.register_buffer(name, buffer)
        self.eval().requires_grad_(False)
        self._check(classifier)

    @torch.jit.unused
    def _check(self, classifier: ZeroShotClassifier) -> None:
        """A classifier that this module does not compute must not be deployed by mistake."""
        generator = torch.Generator().manual_seed(0)
        features = torch.rand(64, self.features, generator=generator)
        for scaler in self.modules():
            if isinstance(scaler, Scaler):  # features of the size that it was fitted to
                features = (scaler.offset + features / scaler.scale).float()
                break
        expected = torch.from_numpy(scores(classifier, features.numpy())).float()
        got = self(features)
        tolerance = 1e-3 * float(expected.abs().max().clamp(max=1))
        if not torch.allclose(got, expected, rtol=1e-3, atol=tolerance):
            raise ValueError(
                "classifier: it does not compute what would be deployed; scores differ by up to "
                f"{float((got - expected).abs().max()):.3g}"
            )

    def forward(self, features: Tensor) -> Tensor:
        """Scores [N, K] of raw features [N, F], float32; the highest is the prediction.

        Raises:
            ValueError: if ``features`` is not [N, F].
        """
        if features.dim() != 2 or features.shape[1] != self.features:
            raise ValueError(f"features: expected [N, {self.features}], got {features.shape}")
        return self.head(self.encoder(features)) - self.offset


def _encoder(classifier: ZeroShotClassifier) -> nn.Module:
    """From features to what the head takes: embeddings, or the features themselves."""
    system, head = classifier.system_, classifier.head_
    if isinstance(head, ScoresHead):
        return nn.Identity()
    if not isinstance(system, Exports):
        raise ValueError(f"system: {system.name} cannot be exported, it has no encoder()")
    return system.encoder()


def _head(classifier: ZeroShotClassifier) -> nn.Module:
    """From what the head takes to uncalibrated scores of the classifier's classes."""
    system, head = classifier.system_, classifier.head_
    classes = torch.from_numpy(classifier.classes_)
    if isinstance(head, SoftmaxHead):
        return _Softmax(head)
    if isinstance(head, NearestHead):
        return _Nearest(head, classes)
    if isinstance(head, EnsembleHead):
        weight = classifier.effective_weight
        assert weight is not None  # there is the head
        return _Ensemble(head, weight)
    if not isinstance(head, ScoresHead):
        raise ValueError(f"head: {head.name!r} cannot be exported")
    if not isinstance(system, ExportsScores):
        raise ValueError(f"system: {system.name} cannot be exported, it has no scorer()")
    scorer = system.scorer(classifier.table_.semantics[head.classes])
    if torch.equal(head.classes, classes):
        return scorer
    return nn.Sequential(scorer, _Columns(torch.searchsorted(head.classes, classes)))
