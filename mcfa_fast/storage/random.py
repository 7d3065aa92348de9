"""Independent streams of random numbers from one seed."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["random_stream"]


def random_stream(
    seed: int, stream: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A new random generator for one purpose, independent of every other ``stream``.

    The library draws from such generators only, never from PyTorch's global one, so results depend
    on ``seed`` and not on what ran before.

    Args:
        seed: Seed of all streams.
        stream: Name of the purpose, for example ``"sampler"``.
        device: Where the generator draws.

    Example:
        >>> first = torch.rand(2, generator=random_stream(1, "noise"))
        >>> again = torch.rand(2, generator=random_stream(1, "noise"))
        >>> torch.equal(first, again)
        True
    """
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    # 63 bits: manual_seed takes a signed 64-bit number.
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
