"""The one training loop: it knows no system."""

from mcfa_fast._extras import require

require("zsl", __name__)

from mcfa_fast.training.config import TrainingConfig
from mcfa_fast.training.loop import train
from mcfa_fast.training.ranks import RankError, Share, World
from mcfa_fast.training.run_folder import RunFolder
from mcfa_fast.training.sampler import Batch, BatchSampler, EpisodicSampler
from mcfa_fast.training.trainable import Trainable
from mcfa_fast.training.update import Update

__all__ = [
    "Batch",
    "BatchSampler",
    "EpisodicSampler",
    "RankError",
    "RunFolder",
    "Share",
    "Trainable",
    "TrainingConfig",
    "Update",
    "World",
    "train",
]
