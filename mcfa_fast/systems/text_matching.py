"""Text matching: images and class texts of one image-text encoder, compared as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.base import System, SystemConfig
from mcfa_fast.systems.presets import Preset, Task

__all__ = ["TextMatching", "TextMatchingConfig", "adapted", "plain"]


class TextMatchingConfig(SystemConfig):
    """Options of text matching."""

    centring: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of each modality's mean over the seen classes that is subtracted before "
        "images and texts are compared. 0: none, as without training.",
    )


class _Means(NamedTuple):
    """Means [D] over the seen classes: of the classes' image means, and of their texts."""

    images: Tensor
    texts: Tensor


class _Centred(nn.Module):
    """Unit rows less an offset, of unit length again."""

    if TYPE_CHECKING:  # TorchScript knows no annotations that are text
        offset: Tensor

    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset)

    def forward(self, rows: Tensor) -> Tensor:
        return F.normalize(F.normalize(rows, dim=1) - self.offset, dim=1)


class TextMatching(System):
    r"""Cosine of an image's embedding and a class text's, both by the same image-text encoder.

    Nothing is trained. Image and text embeddings of such encoders lie in different cones of the
    space (the modality gap); with ``centring`` :math:`a`, :math:`\hat x - a\,m_x` is compared with
    :math:`\hat s - a\,m_s`, where :math:`m_x` and :math:`m_s` are the means over the seen classes
    of image and text embeddings of unit length.

    Preset ``plain`` is text matching itself. ``adapted`` uses the images of the seen classes:
    it centres by half of the means, and for task "gzsl" whitens within classes and takes seen
    classes half from their images.

    Source:
        Radford et al., "Learning transferable visual models from natural language supervision",
        2021, Section 3.1; the modality gap: Liang et al., "Mind the gap", 2022, Section 2. The
        adaptation is this library's own.

    Example:
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> embeddings = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
        >>> texts = torch.eye(6, 8)
        >>> labels = torch.arange(60) % 4
        >>> images = embeddings + 5 * texts[labels]
        >>> classifier = ZeroShotClassifier("text-matching").fit(images, labels, texts)
        >>> classifier.predict(texts[4:]).tolist()
        [4, 5]
    """

    name = "text-matching"
    Config = TextMatchingConfig
    config: TextMatchingConfig

    def __init__(
        self,
        config: TextMatchingConfig,
        visual_features: int,
        semantic_features: int,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        if reason := self.unsuited(visual_features, semantic_features):
            raise ValueError(reason)
        super().__init__(config, visual_features, semantic_features, device=device)

    @classmethod
    def unsuited(cls, visual_features: int, semantic_features: int) -> str:
        if visual_features == semantic_features:
            return ""
        return (
            "semantics: text matching expected descriptors as wide as the features "
            f"({visual_features}), both by one image-text encoder, got {semantic_features}"
        )

    def prepare(self, data: TrainingData) -> _Means:
        classes = torch.from_numpy(data.seen_classes)
        rows = torch.searchsorted(classes, torch.from_numpy(data.labels))
        sums = torch.zeros(len(classes), self.visual_features, dtype=torch.float64)
        start = 0
        for chunk in data.features.chunks():
            own = rows[start : start + len(chunk)]
            sums.index_add_(0, own, F.normalize(chunk, dim=1).double())
            start += len(chunk)
        images = (sums / rows.bincount()[:, None]).mean(dim=0)
        texts = F.normalize(data.semantics[classes].double(), dim=1).mean(dim=0)
        return _Means(images.float(), texts.float())

    def solve(self, prepared: Any) -> None:
        share = self.config.centring
        self._take(share * prepared.images, share * prepared.texts)

    @property
    def embedding_features(self) -> int:
        return self.visual_features

    @torch.no_grad()
    def embed(self, features: Tensor) -> Tensor:
        return self._images(features.to(self.device, torch.float32)).cpu()

    @torch.no_grad()
    def prototypes(self, semantics: Tensor) -> Tensor:
        return self._texts(semantics.to(self.device, torch.float32)).cpu()

    def scale_semantics(self, semantics: Tensor) -> Tensor:
        return self.prototypes(semantics)

    def encoder(self) -> nn.Module:
        return _Centred(self._images.offset.cpu().clone()).eval()

    def state_dict(self) -> Mapping[str, Tensor]:
        return {"images": self._images.offset, "texts": self._texts.offset}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._take(state["images"], state["texts"])

    def _take(self, images: Tensor, texts: Tensor) -> None:
        self._images = _Centred(images).to(self.device)
        self._texts = _Centred(texts).to(self.device)


_TEMPERATURE = {"temperature": 0.01}  # at which CLIP's own probabilities are taken


def plain(task: Task) -> Preset:
    """Text matching without any training."""
    return Preset(heads={"nearest": _TEMPERATURE})


def adapted(task: Task) -> Preset:
    """The settings of highest accuracy among held-out seen classes of WHU-RS19."""
    nearest = dict(_TEMPERATURE)
    if task == "gzsl":
        nearest |= {"whitening": 10.0, "image_share": 0.5}
    return Preset(options={"centring": 0.5}, heads={"nearest": nearest})
