"""Training of the aligned VAEs."""

from mcfa_fast.training.sampler import Batch, BatchSampler, EpisodicSampler
from mcfa_fast.training.trainer import Trainer

__all__ = ["Batch", "BatchSampler", "EpisodicSampler", "Trainer"]
