"""CADA-VAE: aligned variational autoencoders without contrastive losses."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import Field, field_validator
from torch import Tensor

from mcfa_fast.systems.presets import Preset, Task
from mcfa_fast.systems.vae.config import VAEConfig
from mcfa_fast.systems.vae.model import VAEOutput
from mcfa_fast.systems.vae.step import Objective, TermWeights
from mcfa_fast.systems.vae.system import VAESystem
from mcfa_fast.systems.vae.terms import vae_terms
from mcfa_fast.training.config import TrainingConfig
from mcfa_fast.training.ranks import Share

__all__ = ["CADAVAE", "CADAVAEConfig", "CADAVAELosses", "paper", "reference"]

Warmup = tuple[int, int] | None


class CADAVAEConfig(VAEConfig):
    """Options of CADA-VAE; the defaults are the authors'.

    The first epoch has number 0 in the warm-ups, as in the authors' code. The softmax classifier
    over latents belongs to the head of that name.

    Example:
        >>> config = CADAVAEConfig()
        >>> config.visual_hidden, config.visual_decoder_hidden, config.training.epochs
        (1560, 1660, 100)
    """

    cross_reconstruction_weight: float = Field(
        2.37, ge=0, description="Weight γ of the cross-modal reconstruction, after its warm-up."
    )
    alignment_weight: float = Field(
        8.13, ge=0, description="Weight δ of the distribution alignment, after its warm-up."
    )
    kl_weight: float = Field(
        0.25, ge=0, description="Weight β of the KL divergence, after its warm-up."
    )
    kl_warmup: Warmup = Field(
        (0, 93),
        description="Epochs over which the weight grows linearly from 0 to its value, as "
        "(first, last). None: constant.",
    )
    cross_reconstruction_warmup: Warmup = Field((21, 75), description="The same for γ.")
    alignment_warmup: Warmup = Field((6, 22), description="The same for δ.")
    visual_hidden: int = Field(1560, ge=1, description="Hidden units of the visual encoder.")
    visual_decoder_hidden: int | None = Field(
        1660, ge=1, description="The same of the visual decoder. None: as many as the encoder."
    )
    semantic_hidden: int = Field(1450, ge=1, description="Hidden units of the semantic encoder.")
    semantic_decoder_hidden: int | None = Field(
        665, ge=1, description="The same of the semantic decoder. None: as many as the encoder."
    )
    training: TrainingConfig = Field(
        TrainingConfig(batch_size=50, epochs=100),
        description="Batches, epochs, step size, precision.",
    )

    @field_validator("kl_warmup", "cross_reconstruction_warmup", "alignment_warmup")
    @classmethod
    def _check_warmup(cls, value: Warmup) -> Warmup:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError(f"expected epochs (first, last) with 0 <= first < last, got {value}")
        return value

    def factor(self, term: str, epoch: int) -> float:
        """Share of a term's weight that holds in an epoch, counted from 0.

        Example:
            >>> [round(8.13 * CADAVAEConfig().factor("alignment", e), 4) for e in (0, 10, 22, 99)]
            [0.0, 2.0325, 8.13, 8.13]
        """
        warmup = getattr(self, f"{term}_warmup")
        if warmup is None:
            return 1.0
        first, last = warmup
        return min(1.0, max(0.0, (epoch - first) / (last - first)))


class CADAVAELosses(NamedTuple):
    """The weighted sum and its terms before weighting: 0-dim tensors, sums over the batch."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor
    cross_reconstruction: Tensor
    alignment: Tensor


class CADAVAE(VAESystem):
    r"""Cross- and distribution-aligned VAEs.

    .. math::
        \ell = \ell_{rec} + \beta(e)\,\ell_{KL} + \gamma(e)\,\ell_{CA} + \delta(e)\,\ell_{DA}

    with the weights' warm-ups over the epochs e. Departures of preset ``paper`` from the authors'
    code, which ``reference`` follows: σ = exp(logvar / 2) with one noise value per element, every
    image once per epoch instead of batches drawn afresh (both presets), class terms once per class
    weighted by its count.

    Source:
        Schönfeld et al., "Generalized Zero- and Few-Shot Learning via Aligned Variational
        Autoencoders", 2019, Sections 3 and 4, Eqs. 3-7; weights, widths and schedule of the
        authors' code.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> options = {"epochs": 1, "softmax.epochs": 1, "visual_hidden": 64}
        >>> classifier = ZeroShotClassifier("cada-vae", options=options)
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.predict(digits.features[:5]).shape
        (5,)
    """

    name = "cada-vae"
    Config = CADAVAEConfig
    losses = CADAVAELosses._fields
    config: CADAVAEConfig

    def objective(self) -> Objective:
        count_instances = self.config.class_weighting == "instances"

        def losses(
            output: VAEOutput, weights: TermWeights, share: Share | None = None
        ) -> CADAVAELosses:
            terms = vae_terms(output, count_instances=count_instances, share=share)
            total = weights.reconstruction * terms.reconstruction
            for weight, term in zip(weights[1:4], terms[1:], strict=True):
                total = total + weight * term
            return CADAVAELosses(total, *terms)

        return losses

    def weights(self, epoch: int) -> TermWeights:
        config = self.config
        grown = {
            term: getattr(config, f"{term}_weight") * config.factor(term, epoch - 1)
            for term in ("kl", "cross_reconstruction", "alignment")
        }
        return TermWeights(reconstruction=config.reconstruction_weight, **grown)


# Classifier epochs of the authors' code for CUB, in ZSL and GZSL.
_SOFTMAX: dict[str, dict[str, Any]] = {
    "zsl": {"epochs": 22, "seen_samples": 0, "unseen_samples": 200},
    "gzsl": {"epochs": 23, "seen_samples": 200, "unseen_samples": 400},
}


def paper(task: Task) -> Preset:
    """The paper's losses and schedule."""
    return Preset(heads={"softmax": _SOFTMAX[task]}, selection={"rule": "none"})


def reference(task: Task) -> Preset:
    """What the authors' code does: noise, the first images of a class, latents drawn once."""
    return Preset(
        options={
            "sampling_scale": "variance",
            "noise": "row",
            "class_weighting": "instances",
        },
        heads={
            "softmax": {
                **_SOFTMAX[task],
                "seen_choice": "first",
                "resample": False,
                "drop_last": task == "gzsl",
            }
        },
        selection={"rule": "none"},
    )
