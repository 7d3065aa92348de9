"""What is kept on disk and how: files, checkpoints, the identity of a run, random streams."""

from mcfa_fast.storage.atomic import write_atomically, write_text
from mcfa_fast.storage.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from mcfa_fast.storage.identity import Fingerprint, changes, claim, fingerprint
from mcfa_fast.storage.random import random_stream

__all__ = [
    "CheckpointError",
    "Fingerprint",
    "changes",
    "claim",
    "fingerprint",
    "random_stream",
    "read_checkpoint",
    "write_atomically",
    "write_checkpoint",
    "write_text",
]
