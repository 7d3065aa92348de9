"""The whole chain from raw features to scores as one scriptable module."""

import copy
from typing import List

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from mcfa_fast.classifiers.classifier_old import MCFAClassifier
from mcfa_fast.classifiers.heads_old import METHODS, ClassifierHeads

__all__ = ["DeployedClassifier"]


class _Softmax(nn.Module):
    """Log-probabilities [N, K] of latents [N, D]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, latents: Tensor) -> Tensor:
        return F.log_softmax(self.linear(latents), dim=1)


class _Nearest(nn.Module):
    """Cosine similarities [N, K] of latents [N, D] to the nearest of each class's vectors, times
    each class's gain."""

    vectors: Tensor

    def __init__(self, heads: ClassifierHeads, classes: Tensor) -> None:
        super().__init__()
        vectors, owners = heads.class_vectors()
        own = [vectors[owners == index] for index in classes]
        most = max(map(len, own))
        # [P, K, D]: a class with fewer vectors than others has its first repeated.
        padded = [torch.cat([part, part[:1].expand(most - len(part), -1)]) for part in own]
        units = torch.stack([_unit(part) for part in padded], dim=1)
        self.register_buffer("vectors", units * heads.gains(classes)[:, None])

    def forward(self, latents: Tensor) -> Tensor:
        latents = _unit(latents)
        nearest = F.linear(latents, self.vectors[0])
        for k in range(1, self.vectors.shape[0]):
            nearest = torch.maximum(nearest, F.linear(latents, self.vectors[k]))
        return nearest


class _Ensemble(nn.Module):
    """Log-probabilities [N, K] of both combined, as :func:`mcfa_fast.classifiers.heads_old.combine`."""

    def __init__(
        self, softmax: _Softmax, nearest: _Nearest, weight: float, sharpness: float
    ) -> None:
        super().__init__()
        self.softmax, self.nearest = softmax, nearest
        self.weight, self.sharpness = weight, sharpness

    def forward(self, latents: Tensor) -> Tensor:
        similarities = self.sharpness * self.nearest(latents)
        return F.log_softmax(
            (1.0 - self.weight) * self.softmax(latents) + self.weight * similarities, dim=1
        )


def _unit(latents: Tensor) -> Tensor:
    # In float64, as LatentIndex does, so that the norm of a large or tiny vector is still exact.
    return F.normalize(latents.double(), dim=1, eps=1e-300).float()


class DeployedClassifier(nn.Module):
    r"""Scaler, visual encoder's mean, classifier and calibration: what a deployed file computes.

    The scores are those of :meth:`MCFAClassifier.decision_function` over the classifier's default
    candidates, in float32: log-probabilities (softmax, ensemble) or cosine similarities (nearest
    class), less the calibration for seen classes. It holds copies of the weights, on the CPU, and
    can be scripted, exported and traced.

    Args:
        classifier: a fitted classifier; its `method` and its calibration in force are taken.

    Attributes:
        features: raw visual features F.
        class_names: names of the K columns of scores. (A list, for TorchScript.)

    Raises:
        NotFittedError: before the classifier was fitted.
        ValueError: on another method, or when the classifier computes something else than this
            module, by a check on some made-up features.

    Example:
        >>> from mcfa_fast import MCFAClassifier, MCFAConfig, data
        >>> digits = data.load("digits")
        >>> split = digits.split("7/3:0", generalized=False)
        >>> config = MCFAConfig.paper("zsl", epochs=1, classifier_epochs=1)
        >>> classifier = MCFAClassifier(config, method="nearest").fit(
        ...     digits.features[split.train], digits.labels[split.train], digits.semantics
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

    def __init__(self, classifier: MCFAClassifier) -> None:
        super().__init__()
        check_is_fitted(classifier)
        if classifier.method not in METHODS:
            raise ValueError(f"method: expected one of {METHODS}, got {classifier.method!r}")
        heads, classes = classifier.heads_, classifier.classes_
        encoder = heads.model.visual.encoder
        self.scaler = copy.deepcopy(heads.model.scaler).cpu()
        hidden = [] if encoder.hidden is None else [encoder.hidden, nn.ReLU()]
        self.mean = copy.deepcopy(nn.Sequential(*hidden, encoder.mean)).cpu()
        softmax = _Softmax(copy.deepcopy(heads.softmax.linear).cpu())
        nearest = _Nearest(heads, torch.from_numpy(classes))
        if classifier.method == "ensemble":
            weight = float(classifier.effective_weight)
            self.head: nn.Module = _Ensemble(softmax, nearest, weight, heads.sharpness)
        else:
            self.head = softmax if classifier.method == "softmax" else nearest
        seen = np.isin(classes, classifier.seen_classes_)
        offset = (classifier.effective_calibration * seen).astype(np.float32)
        self.register_buffer("offset", torch.from_numpy(offset))
        self.features = classifier.n_features_in_
        self.class_names = [classifier.class_names_[index] for index in classes]
        self.eval().requires_grad_(False)
        self._check(classifier)

    @torch.jit.unused
    def _check(self, classifier: MCFAClassifier) -> None:
        """A classifier that this module does not compute must not be deployed by mistake."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.rand(64, self.features, generator=generator)
        features = self.scaler.offset + rows / self.scaler.scale
        expected = torch.from_numpy(classifier.decision_function(features)).float()
        got = self(features)
        if not torch.allclose(got, expected, rtol=1e-3, atol=1e-3):
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
        return self.head(self.mean(self.scaler(features))) - self.offset
