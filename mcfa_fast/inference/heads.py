"""The classifiers over one trained model: softmax, nearest class, and both together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mcfa_fast.config import MCFAConfig
from mcfa_fast.inference.bulk import encode_means
from mcfa_fast.inference.latent_index import LatentIndex
from mcfa_fast.inference.latents import LatentBank, class_latents, group_means, image_latents
from mcfa_fast.inference.products import linear
from mcfa_fast.inference.softmax import SoftmaxClassifier
from mcfa_fast.inference.whitening import whitened
from mcfa_fast.models.mcfa import MCFA

__all__ = ["DEFAULT_WEIGHT", "METHODS", "ClassifierHeads", "Method", "combine"]

Method = Literal["softmax", "nearest", "ensemble"]
METHODS: tuple[Method, ...] = get_args(Method)

DEFAULT_WEIGHT = 0.5
"""Share of the nearest class in the ensemble, where validation chose none."""

_SPREAD_ROWS = 4096

Monitor = Callable[[int, "ClassifierHeads"], float]


def combine(log_probabilities: Tensor, similarities: Tensor, weight: float) -> Tensor:
    r"""Log-probabilities :math:`\log p_c^{1-w} e^{w \kappa \cos_c} - \log Z` of the ensemble.

    A convex combination, normalised, of two log-probabilities (a logarithmic opinion pool): the
    softmax classifier's and those of a softmax over similarities at the temperature
    :math:`1 / \kappa`. With w = 0 it is the softmax classifier's.

    Args:
        log_probabilities: log p [N, K] of the softmax classifier.
        similarities: κ·cos [N, K], see :attr:`ClassifierHeads.sharpness`.
        weight: share w of the nearest class, 0 (softmax alone) to 1 (nearest alone).

    Source:
        Genest and Zidek, "Combining probability distributions: a critique and an annotated
        bibliography", 1986, Section 3.
    """
    return F.log_softmax((1.0 - weight) * log_probabilities + weight * similarities, dim=1)


class ClassifierHeads:
    """Softmax and nearest-class classifiers that share a trained model and its class latents.

    The softmax classifier knows the classes in `softmax_classes`, the nearest-class rule all of
    them. Both work in main memory, on latents that the model may have encoded elsewhere, so they
    give the same results whatever the model's device.

    Args:
        model: trained model.
        semantics: raw descriptors [C, A]; a class is a row of it.
        seen_classes: ascending indices of the classes that have training images.
        unseen_classes: ascending indices of the classes that are known by descriptor only.
        seen_bank: latents to draw for the seen classes; None for zero-shot classification among
            the unseen classes only, where they are not needed.
        seen_means: mean image latent [S, D] of each seen class, for ``prototype_kernel``.
    """

    softmax: SoftmaxClassifier
    """Set by :meth:`fit_softmax`."""

    def __init__(
        self,
        model: MCFA,
        semantics: Tensor,
        seen_classes: Tensor,
        unseen_classes: Tensor,
        seen_bank: LatentBank | None,
        seen_means: Tensor | None = None,
    ) -> None:
        self.model = model
        self.semantics = semantics
        self.seen_classes = seen_classes
        self.unseen_classes = unseen_classes
        self._seen_bank = seen_bank
        self._seen_means = seen_means
        self._index: LatentIndex | None = None
        self._sharpness: float | None = None

    @classmethod
    def from_images(
        cls,
        model: MCFA,
        features: np.ndarray,
        labels: np.ndarray,
        semantics: Tensor,
        unseen_classes: Tensor,
        monitor: Monitor | None = None,
    ) -> ClassifierHeads:
        """Heads for classes whose training images are given; the softmax is trained at once.

        Args:
            model: the model as it was trained; its configuration says how latents are drawn, and
                with ``latent_whitening`` the heads work on a whitened copy of it.
            features: raw features [n, F] of the training images.
            labels: class index [n] of every row; these are the seen classes.
            semantics: raw descriptors [C, A].
            unseen_classes: ascending indices of the classes that are known by descriptor only.
            monitor: see :meth:`fit_softmax`.
        """
        config = model.config
        if config.latent_whitening is not None:
            model = whitened(model, features, labels)
        seen_classes = torch.from_numpy(np.unique(labels))
        seen_bank = None
        if config.task == "gzsl":
            seen_bank = image_latents(
                model,
                features,
                labels,
                per_class=config.seen_latents,
                choice=config.seen_choice,
                generator=config.generator("classifier images"),
            )
        seen_means = None
        if config.prototype_kernel is not None:
            rows = torch.from_numpy(np.searchsorted(seen_classes.numpy(), labels))
            seen_means = group_means(encode_means(model, features), rows, len(seen_classes))
        heads = cls(model, semantics, seen_classes, unseen_classes, seen_bank, seen_means)
        heads.fit_softmax(monitor)
        return heads

    @property
    def classes(self) -> Tensor:
        """Ascending indices of all classes."""
        return torch.cat([self.seen_classes, self.unseen_classes]).sort().values

    @property
    def softmax_classes(self) -> Tensor:
        """Ascending indices of the classes that the softmax knows: all, or the unseen for zsl."""
        return self.unseen_classes if self._seen_bank is None else self.classes

    @property
    def index(self) -> LatentIndex:
        """The :meth:`class_vectors` under the classes' indices; built when first needed."""
        if self._index is None:
            vectors, classes = self.class_vectors()
            self._index = LatentIndex(vectors.shape[1])
            self._index.add(vectors, classes, several=True)
        return self._index

    def class_vectors(self) -> tuple[Tensor, Tensor]:
        r"""What the nearest class is found among: vectors [V, D] and whose they are [V].

        Every class's latent mean. With ``prototype_kernel`` :math:`\kappa`, class c has
        :math:`\hat s_c + \sum_k w_{ck} \hat m_k`, where :math:`\hat s` and :math:`\hat m` are the
        latent means of descriptors and of each seen class's images, brought to unit length, and
        :math:`w_c` is the softmax over seen classes k of the cosine of their scaled descriptors
        over :math:`\kappa`. With ``image_prototypes``, the seen classes of task "gzsl" have a
        second vector: the mean of the latent means of their images that the softmax is trained on.
        """
        vectors = class_latents(self.model, self.semantics, self.classes, per_class=1).mean
        if self._seen_means is not None:
            vectors = F.normalize(vectors, dim=1) + self._kernel_means()
        bank = self._seen_bank
        if not self.model.config.image_prototypes or bank is None:
            return vectors, self.classes
        classes, rows = bank.labels.unique(return_inverse=True)
        prototypes = group_means(bank.mean, rows, len(classes))
        return torch.cat([vectors, prototypes]), torch.cat([self.classes, classes])

    @torch.no_grad()
    def _kernel_means(self) -> Tensor:
        """Of every class: its neighbours' mean image latents [C, D], those of seen classes."""
        scaler = self.model.semantic_scaler
        descriptors = scaler(self.semantics.to(scaler.offset.device, scaler.offset.dtype)).cpu()
        descriptors = F.normalize(descriptors, dim=1)
        similarities = descriptors[self.classes] @ descriptors[self.seen_classes].T
        weights = torch.softmax(similarities / self.model.config.prototype_kernel, dim=1)
        return weights @ F.normalize(self._seen_means, dim=1)

    @property
    def sharpness(self) -> float:
        r"""The factor :math:`\kappa` that gives similarities the spread of log-probabilities.

        :math:`\kappa^2` is the ratio of their variances over the classes that the softmax knows,
        each a mean over latents as they are drawn to train it; without ``seen_gain``. Computed
        when first needed.
        """
        if self._sharpness is None:
            generator = self.model.config.generator("ensemble")
            latents, _ = self._bank().draw(self.model, generator)
            latents = latents[:: max(1, len(latents) // _SPREAD_ROWS)]
            similarities, known = self.index.scores(latents)
            similarities = similarities[:, torch.isin(known, self.softmax_classes)]
            scores = self.scores(latents, self.softmax_classes, "softmax")
            ratio = float((_spread(scores) / _spread(similarities)).sqrt())
            # One class alone, or classes of one latent, have no spread.
            self._sharpness = ratio if 0 < ratio < float("inf") else 1.0
        return self._sharpness

    def calibration_unit(self, method: Method) -> float:
        """What calibrations of a method are multiples of, so that they fit other models as well.

        The `sharpness` for an ensemble, by which the scores of one model are larger than those of
        another; 1 for the others.
        """
        return self.sharpness if method == "ensemble" else 1.0

    def fit_softmax(self, monitor: Monitor | None = None) -> None:
        """Train a new softmax classifier on latents of the classes it has to know.

        Args:
            monitor: called as ``monitor(epoch, heads)`` after each epoch, counted from 1, with the
                softmax of that epoch in place; the epoch of highest value is kept. None keeps the
                last.
        """
        config: MCFAConfig = self.model.config
        bank = self._bank()
        classes = self.softmax_classes
        noise = config.generator("classifier noise")

        def draw() -> tuple[Tensor, Tensor]:
            latents, labels = bank.draw(self.model, noise)
            return latents, torch.searchsorted(classes, labels)

        once = None if config.resample_latents else draw()
        self.softmax = SoftmaxClassifier(
            config.latent_features, len(classes), generator=config.generator("classifier weights")
        )
        self.softmax.fit(
            draw if once is None else lambda: once,
            epochs=config.classifier_epochs,
            batch_size=config.classifier_batch_size,
            learning_rate=config.classifier_learning_rate,
            drop_last=config.drop_last,
            generator=config.generator("classifier order"),
            monitor=None if monitor is None else lambda epoch, _: monitor(epoch, self),
        )

    @torch.no_grad()
    def scores(
        self, latents: Tensor, classes: Tensor, method: Method, weight: float = DEFAULT_WEIGHT
    ) -> Tensor:
        """Scores [N, K] of latents [N, D] for the given classes [K], higher is better.

        Log-probabilities over `softmax_classes` of the softmax classifier ("softmax") or combined
        with similarities ("ensemble", :func:`combine`), or cosine similarities to the class latents
        in -1..1 ("nearest"), for task "gzsl" those of seen classes times ``seen_gain``.

        Args:
            latents: [N, D].
            classes: class indices, the columns.
            method: which classifier.
            weight: share of the nearest class in an ensemble.

        Raises:
            ValueError: when the softmax does not know one of the classes.
        """
        if method == "nearest":
            scores, known = self.index.scores(latents)
            gains = self.gains(known)
            if (gains != 1).any():  # else spare a pass over all scores
                scores = scores * gains
        else:
            known = self.softmax_classes
            unknown = classes[~torch.isin(classes, known)]
            if len(unknown):
                raise ValueError(
                    f"candidates: class {int(unknown[0])} is a seen class, which the softmax of "
                    "task 'zsl' does not know; use method 'nearest' or train for task 'gzsl'"
                )
            layer = self.softmax.linear
            scores = F.log_softmax(linear(latents, layer.weight, layer.bias), dim=1)
            if method == "ensemble":
                similarities = self.scores(latents, known, "nearest")
                scores = combine(scores, self.sharpness * similarities, weight)
        if torch.equal(known, classes):
            return scores
        return scores[:, torch.searchsorted(known, classes)]

    def gains(self, classes: Tensor) -> Tensor:
        """Factor [K] of the similarities to each of the given classes [K]."""
        config: MCFAConfig = self.model.config
        seen = torch.isin(classes, self.seen_classes)
        return torch.where(seen & (config.task == "gzsl"), config.seen_gain, 1.0)

    def add_classes(self, semantics: Tensor) -> None:
        """Append unseen classes by their raw descriptors [M, A]; the softmax is trained anew."""
        added = torch.arange(len(semantics)) + len(self.semantics)
        self.semantics = torch.cat([self.semantics, semantics])
        self.unseen_classes = torch.cat([self.unseen_classes, added])
        # Built anew on its next use, not extended: an encoder's last bits may depend on the number
        # of rows, and a classifier that was saved and loaded has to be exactly the same.
        self._index = None
        self._sharpness = None
        self.fit_softmax()

    def _bank(self) -> LatentBank:
        """What the softmax is trained on."""
        bank = class_latents(
            self.model,
            self.semantics,
            self.unseen_classes,
            per_class=self.model.config.unseen_latents,
        )
        return bank if self._seen_bank is None else self._seen_bank.join(bank)

    def state(self) -> dict[str, Any]:
        """All that :meth:`from_state` needs, as tensors and plain containers."""
        bank = self._seen_bank
        return {
            "config": self.model.config.model_dump_json(),
            "visual_features": self.model.visual_features,
            "model": self.model.state_dict(),
            "softmax": self.softmax.state_dict(),
            "semantics": self.semantics,
            "seen_classes": self.seen_classes,
            "unseen_classes": self.unseen_classes,
            "seen_bank": None if bank is None else vars(bank),
            "seen_means": self._seen_means,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | str) -> ClassifierHeads:
        """Heads as they were when :meth:`state` was called, with the model on `device`."""
        config = MCFAConfig.model_validate_json(state["config"])
        model = MCFA(state["visual_features"], state["semantics"].shape[1], config)
        model.load_state_dict(state["model"])
        bank = state["seen_bank"]
        heads = cls(
            model.eval().to(device),
            state["semantics"],
            state["seen_classes"],
            state["unseen_classes"],
            None if bank is None else LatentBank(**bank),
            state["seen_means"],
        )
        heads.softmax = SoftmaxClassifier(config.latent_features, len(heads.softmax_classes))
        heads.softmax.load_state_dict(state["softmax"])
        return heads


def _spread(scores: Tensor) -> Tensor:
    """Variance over the columns of scores [N, K], averaged over the rows."""
    return scores.var(dim=1, correction=0).mean()
