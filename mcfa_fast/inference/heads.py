"""The two classifiers over one trained model: softmax and nearest class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.config import MCFAConfig
from mcfa_fast.inference.latent_index import LatentIndex
from mcfa_fast.inference.latents import LatentBank, class_latents, image_latents
from mcfa_fast.inference.softmax import SoftmaxClassifier
from mcfa_fast.models.mcfa import MCFA

__all__ = ["METHODS", "ClassifierHeads", "Method"]

Method = Literal["softmax", "nearest"]
METHODS: tuple[Method, ...] = get_args(Method)

Monitor = Callable[[int, "ClassifierHeads"], float]


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
    ) -> None:
        self.model = model
        self.semantics = semantics
        self.seen_classes = seen_classes
        self.unseen_classes = unseen_classes
        self._seen_bank = seen_bank
        self._index: LatentIndex | None = None

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
            model: trained model; its configuration says how latents are drawn.
            features: raw features [n, F] of the training images.
            labels: class index [n] of every row; these are the seen classes.
            semantics: raw descriptors [C, A].
            unseen_classes: ascending indices of the classes that are known by descriptor only.
            monitor: see :meth:`fit_softmax`.
        """
        config = model.config
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
        heads = cls(model, semantics, seen_classes, unseen_classes, seen_bank)
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
        """Every class's latent mean under the class's index; built when first needed."""
        if self._index is None:
            means = class_latents(self.model, self.semantics, self.classes, per_class=1).mean
            self._index = LatentIndex(means.shape[1])
            self._index.add(means, self.classes)
        return self._index

    def fit_softmax(self, monitor: Monitor | None = None) -> None:
        """Train a new softmax classifier on latents of the classes it has to know.

        Args:
            monitor: called as ``monitor(epoch, heads)`` after each epoch, counted from 1, with the
                softmax of that epoch in place; the epoch of highest value is kept. None keeps the
                last.
        """
        config: MCFAConfig = self.model.config
        bank = class_latents(
            self.model, self.semantics, self.unseen_classes, per_class=config.unseen_latents
        )
        if self._seen_bank is not None:
            bank = self._seen_bank.join(bank)
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
    def scores(self, latents: Tensor, classes: Tensor, method: Method) -> Tensor:
        """Scores [N, K] of latents [N, D] for the given classes [K], higher is better.

        Log-probabilities over `softmax_classes` ("softmax"), or cosine similarities to the class
        latents in -1..1 ("nearest").

        Raises:
            ValueError: when the softmax does not know one of the classes.
        """
        if method == "softmax":
            unknown = classes[~torch.isin(classes, self.softmax_classes)]
            if len(unknown):
                raise ValueError(
                    f"candidates: class {int(unknown[0])} is a seen class, which the softmax of "
                    "task 'zsl' does not know; use method 'nearest' or train for task 'gzsl'"
                )
            columns = torch.searchsorted(self.softmax_classes, classes)
            return self.softmax(latents)[:, columns]
        similarities, ids = self.index.search(latents, k=len(self.index))
        by_class = similarities.new_empty(len(latents), len(self.semantics))
        return by_class.scatter_(1, ids, similarities)[:, classes]

    def add_classes(self, semantics: Tensor) -> None:
        """Append unseen classes by their raw descriptors [M, A]; the softmax is trained anew."""
        added = torch.arange(len(semantics)) + len(self.semantics)
        self.semantics = torch.cat([self.semantics, semantics])
        self.unseen_classes = torch.cat([self.unseen_classes, added])
        # Built anew on its next use, not extended: an encoder's last bits may depend on the number
        # of rows, and a classifier that was saved and loaded has to be exactly the same.
        self._index = None
        self.fit_softmax()

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
        )
        heads.softmax = SoftmaxClassifier(config.latent_features, len(heads.softmax_classes))
        heads.softmax.load_state_dict(state["softmax"])
        return heads
