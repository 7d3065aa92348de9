"""The two aligned VAEs and their objective."""

from mcfa_fast.models.chunks import in_chunks
from mcfa_fast.models.mcfa import MCFA, MCFAOutput
from mcfa_fast.models.objective import LossWeights, MCFALoss, MCFALosses
from mcfa_fast.models.scaling import MinMaxScaler, Scaler, UnitScaler
from mcfa_fast.models.vae import VAE, Encoder

__all__ = [
    "MCFA",
    "VAE",
    "Encoder",
    "LossWeights",
    "MCFALoss",
    "MCFALosses",
    "MCFAOutput",
    "MinMaxScaler",
    "Scaler",
    "UnitScaler",
    "in_chunks",
]
