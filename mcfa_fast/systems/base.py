"""What a zero-shot system is: its options, its training, and what it can do once trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.storage.random import random_stream
from mcfa_fast.training.config import Options, TrainingConfig
from mcfa_fast.training.placement import as_device
from mcfa_fast.training.trainable import Trainable

__all__ = [
    "Embeds",
    "Exports",
    "ExportsScores",
    "SampleBank",
    "Scores",
    "Synthesizes",
    "System",
    "SystemConfig",
    "TrainableConfig",
]


class SystemConfig(Options):
    """Options of a system: all that its trained state depends on besides the data.

    A configuration is immutable; :meth:`replace` gives a changed, validated copy.
    """

    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every random stream.")

    def replace(self, **changes: Any) -> Self:
        """A validated copy with changes applied.

        Raises:
            pydantic.ValidationError: (a ``ValueError``) naming each option that is unknown, of a
                wrong type or out of its bounds.
        """
        return type(self)(**{**self.model_dump(), **changes})

    def generator(self, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
        """The random generator of one purpose, see
        :func:`~mcfa_fast.storage.random.random_stream`."""
        return random_stream(self.seed, stream, device)


class TrainableConfig(SystemConfig):
    """Options of a system that is trained by batches."""

    training: TrainingConfig = Field(
        default_factory=TrainingConfig, description="Batches, epochs, step size, precision."
    )

    def replace(self, **changes: Any) -> Self:
        """A validated copy; changes may name options of ``training`` directly.

        Example:
            >>> TrainableConfig().replace(epochs=7).training.epochs
            7
        """
        nested = {name: changes.pop(name) for name in [*changes] if name in _TRAINING}
        values = {**self.model_dump(), **changes}
        training = values["training"]
        if isinstance(training, TrainingConfig):
            training = training.model_dump()
        return type(self)(**{**values, "training": {**training, **nested}})


_TRAINING = TrainingConfig.model_fields


class System(ABC):
    """A zero-shot system for data of given widths; it knows no split, head or command line.

    A subclass names itself and its options, and gives either a :meth:`trainable` or a closed-form
    :meth:`solve`. What heads can do with it follows from the protocols below that it satisfies.

    Args:
        config: Its options.
        visual_features: Width F of visual features.
        semantic_features: Width A of class descriptors.
        device: Where it computes.

    Raises:
        ValueError: If there is no such device.
    """

    name: ClassVar[str]
    """As the command line calls it."""
    Config: ClassVar[type[SystemConfig]]

    def __init__(
        self,
        config: SystemConfig,
        visual_features: int,
        semantic_features: int,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.visual_features = visual_features
        self.semantic_features = semantic_features
        self.device = as_device(device)

    @classmethod
    def unsuited(cls, visual_features: int, semantic_features: int) -> str:
        """Why it does not work with data of these widths; empty if it does."""
        return ""

    def trainable(self, data: TrainingData, *, resident: bool | None = None) -> Trainable | None:
        """What the training loop trains; None for a system that is solved in closed form.

        Reads the features for the first time, which checks them.

        Args:
            data: The images of the seen classes.
            resident: See :func:`~mcfa_fast.training.placement.place`.

        Raises:
            ValueError: If the options do not suit the data.
        """
        return None

    def finish(self) -> None:  # noqa: B027 (most systems compute nothing of their weights)
        """Weights have changed and are final for now: what is computed of them is computed once."""

    def prepare(self, data: TrainingData) -> Any:
        """What :meth:`solve` is given: statistics of the data that no option changes."""
        raise NotImplementedError

    def solve(self, prepared: Any) -> None:
        """Fit in closed form, or by a solver, with the present options.

        It may be called again with the same object after ``config`` was replaced.
        """
        raise NotImplementedError

    @abstractmethod
    def state_dict(self) -> Mapping[str, Tensor]:
        """All that was learned, as tensors."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state_dict` gave."""


@runtime_checkable
class Scores(Protocol):
    """A system that scores classes itself."""

    def scores(self, features: Tensor, semantics: Tensor) -> Tensor:
        """Scores [N, K], in main memory, of raw features [N, F] for raw descriptors [K, A]."""


@runtime_checkable
class Embeds(Protocol):
    """A system that brings images and classes into one space."""

    @property
    def embedding_features(self) -> int:
        """Dimensions D of the space."""

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings [N, D], in main memory, of raw features [N, F]."""

    def prototypes(self, semantics: Tensor) -> Tensor:
        """Embeddings [K, D], in main memory, of raw descriptors [K, A]."""

    def scale_semantics(self, semantics: Tensor) -> Tensor:
        """Raw descriptors [K, A] as the system's own input, in main memory."""


class SampleBank(Protocol):
    """Distributions in the embedding space, one an entry, that samples are drawn from."""

    def __len__(self) -> int: ...

    def join(self, other: SampleBank) -> SampleBank:
        """The entries of both, this one's first."""

    def draw(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        """So many samples of each entry [R], one after the other: [sum of counts, D]."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors."""


@runtime_checkable
class Synthesizes(Protocol):
    """A system that makes training samples for a classifier, also of classes without images."""

    @property
    def embedding_features(self) -> int:
        """Dimensions D of a sample."""

    def image_bank(self, features: FeatureRows) -> SampleBank:
        """One entry for every image."""

    def class_bank(self, semantics: Tensor) -> SampleBank:
        """One entry for every raw descriptor [K, A]."""

    def load_bank(self, state: Mapping[str, Tensor]) -> SampleBank:
        """What :meth:`SampleBank.state_dict` gave."""


@runtime_checkable
class Exports(Protocol):
    """A system whose part for images can leave the library."""

    def encoder(self) -> nn.Module:
        """A scriptable copy, on the CPU: raw features [N, F] to embeddings [N, D]."""


@runtime_checkable
class ExportsScores(Scores, Protocol):
    """A system whose scores can leave the library."""

    def scorer(self, semantics: Tensor) -> nn.Module:
        """A scriptable copy, on the CPU and in float32, of :meth:`scores` for raw descriptors
        [K, A]: raw features [N, F] to scores [N, K]."""
