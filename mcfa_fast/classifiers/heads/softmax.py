"""A softmax classifier trained on samples that the system makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from mcfa_fast.classifiers.heads.base import ClassTable, Head, Monitor
from mcfa_fast.classifiers.heads.linear_softmax import SoftmaxClassifier
from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.linear import linear
from mcfa_fast.systems.base import SampleBank
from mcfa_fast.systems.presets import Task
from mcfa_fast.training.config import Options

__all__ = ["SoftmaxHead", "SoftmaxOptions", "choose_images"]


class SoftmaxOptions(Options):
    """Options of the softmax head."""

    epochs: int = Field(50, ge=1, description="Passes over the samples.")
    batch_size: int = Field(32, ge=1, description="Samples per batch.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size.")
    seen_samples: int = Field(
        200,
        ge=0,
        description="Samples per seen class, from its training images; used for task 'gzsl'.",
    )
    unseen_samples: int = Field(
        200, ge=1, description="Samples per unseen class, from its descriptor."
    )
    seen_choice: Literal["random", "first"] = Field(
        "random", description="Which training images of a seen class give its samples."
    )
    resample: bool = Field(True, description="Draw fresh samples in every epoch, or only once.")
    drop_last: bool = Field(
        False, description="Leave out the last batch of an epoch when incomplete."
    )


class SoftmaxHead(Head):
    """A linear softmax classifier over embeddings, trained on samples of the classes.

    For task "zsl" it knows the unseen classes only, and images of seen ones are not needed. Scores
    are log-probabilities.

    Source:
        Liu et al., Section II-A; the training is that of the authors' code.
    """

    name = "softmax"
    gives_log_probabilities = True
    Options = SoftmaxOptions
    options: SoftmaxOptions
    _images: SampleBank | None = None

    @classmethod
    def check(cls, options: SoftmaxOptions, task: Task) -> None:
        if task == "gzsl" and options.seen_samples == 0:
            raise ValueError("softmax.seen_samples: expected 1 or more for task 'gzsl', got 0")

    def observe(self, data: TrainingData) -> None:
        if self.task != "gzsl":
            return
        rows, counts = choose_images(
            data.labels,
            per_class=self.options.seen_samples,
            choice=self.options.seen_choice,
            generator=self.system.config.generator("classifier images"),
        )
        self._images = self.system.image_bank(data.features.take(rows))
        self._image_labels = torch.from_numpy(data.labels[rows])
        self._image_counts = torch.from_numpy(counts)

    def fit(self, table: ClassTable, monitor: Monitor | None = None) -> None:
        options, config = self.options, self.system.config
        self.classes = table.unseen if self._images is None else table.all
        bank, labels, counts = self._bank(table)
        columns = torch.searchsorted(self.classes, labels.repeat_interleave(counts))
        noise = config.generator("classifier noise")

        def draw() -> tuple[Tensor, Tensor]:
            return bank.draw(counts, noise), columns

        once = None if options.resample else draw()
        self.layer = SoftmaxClassifier(
            self.system.embedding_features,
            len(self.classes),
            generator=config.generator("classifier weights"),
        )
        self.layer.fit(
            draw if once is None else lambda: once,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            drop_last=options.drop_last,
            generator=config.generator("classifier order"),
            monitor=None if monitor is None else lambda epoch, _: monitor(epoch, self),
        )

    def scores(self, features: Tensor) -> Tensor:
        return self.log_probabilities(self.system.embed(features))

    @torch.no_grad()
    def log_probabilities(self, embeddings: Tensor) -> Tensor:
        """Log-probabilities [N, K] of embeddings [N, D]."""
        layer = self.layer.linear
        return F.log_softmax(linear(embeddings, layer.weight, layer.bias), dim=1)

    def samples(self, table: ClassTable, generator: torch.Generator) -> Tensor:
        """Samples as the classifier is trained on, of all classes in turn."""
        bank, _, counts = self._bank(table)
        return bank.draw(counts, generator)

    def state_dict(self) -> dict[str, Any]:
        images = None
        if self._images is not None:
            images = {
                "bank": self._images.state_dict(),
                "labels": self._image_labels,
                "counts": self._image_counts,
            }
        return {"images": images, "layer": self.layer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], table: ClassTable) -> None:
        images = state["images"]
        if images is not None:
            self._images = self.system.load_bank(images["bank"])
            self._image_labels, self._image_counts = images["labels"], images["counts"]
        self.classes = table.unseen if images is None else table.all
        self.layer = SoftmaxClassifier(self.system.embedding_features, len(self.classes))
        self.layer.load_state_dict(state["layer"])

    def _bank(self, table: ClassTable) -> tuple[SampleBank, Tensor, Tensor]:
        """What the samples come from, the class of every entry [R] and its number of samples."""
        bank = self.system.class_bank(table.semantics[table.unseen])
        labels = table.unseen
        counts = torch.full_like(labels, self.options.unseen_samples)
        if self._images is None:
            return bank, labels, counts
        return (
            self._images.join(bank),
            torch.cat([self._image_labels, labels]),
            torch.cat([self._image_counts, counts]),
        )


def choose_images(
    labels: np.ndarray,
    *,
    per_class: int,
    choice: Literal["random", "first"],
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Images that stand for their classes, and how many samples each gives.

    A class with more than `per_class` images is represented by so many of them, the first ones or a
    random choice; one with fewer has them repeated in turn.

    Returns:
        Rows [R], class by class, and their numbers of samples [R].

    Example:
        >>> labels = np.array([3, 3, 3, 7, 7])
        >>> rows, counts = choose_images(
        ...     labels, per_class=3, choice="first", generator=torch.Generator()
        ... )
        >>> rows.tolist(), counts.tolist()
        ([0, 1, 2, 3, 4], [1, 1, 1, 2, 1])
    """
    rows, counts = [], []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if choice == "random":
            own = own[torch.randperm(len(own), generator=generator).numpy()]
        own = own[:per_class]
        rows.append(own)
        counts.append(per_class // len(own) + (np.arange(len(own)) < per_class % len(own)))
    return np.concatenate(rows), np.concatenate(counts)
