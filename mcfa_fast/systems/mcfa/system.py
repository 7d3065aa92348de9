"""MCFA as a system."""

from __future__ import annotations

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.systems.mcfa.objective import MCFALoss, MCFALosses, weights_of
from mcfa_fast.systems.vae.step import Contrasts, TermWeights
from mcfa_fast.systems.vae.system import VAESystem

__all__ = ["MCFASystem"]


class MCFASystem(VAESystem):
    """Multi-level cross-modal feature alignment via contrastive learning.

    Two VAEs share one latent space, aligned by cross-modal reconstruction, the Wasserstein distance
    of their Gaussians and three supervised contrastive losses
    (:class:`~mcfa_fast.systems.mcfa.objective.MCFALoss`).

    Source:
        Liu et al., "Multi-level Cross-modal Feature Alignment via Contrastive Learning towards
        Zero-shot Classification of Remote Sensing Image Scenes", 2023, Eqs. 1-7.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("mcfa", options={"epochs": 1, "softmax.epochs": 1})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.predict(digits.features[:5]).shape
        (5,)
    """

    name = "mcfa"
    Config = MCFAConfig
    losses = MCFALosses._fields
    config: MCFAConfig

    def objective(self) -> MCFALoss:
        return MCFALoss(self.config)

    def weights(self, epoch: int) -> TermWeights:
        return weights_of(self.config)

    def contrasts(self) -> Contrasts | None:
        if self.config.contrast == "means":
            return None
        return Contrasts(self.config.temperature, self.config.positives)
