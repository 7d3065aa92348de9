"""MCFA: multi-level cross-modal feature alignment by contrastive learning."""

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.systems.mcfa.objective import MCFALoss, MCFALosses
from mcfa_fast.systems.mcfa.system import MCFASystem
from mcfa_fast.systems.vae.model import AlignedVAEs as MCFA

__all__ = ["MCFA", "MCFAConfig", "MCFALoss", "MCFALosses", "MCFASystem"]
