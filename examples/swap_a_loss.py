"""Swap the loss of a training loop: the same values and gradients in linear memory.

An encoder is trained with the supervised contrastive loss (Khosla et al., 2020) as most code writes
it, over the N×N matrix of similarities, and then with this library's loss in its place: as it is,
under ``torch.compile``, and scripted for use without Python. PyTorch and NumPy are all it needs.

Usage: python examples/swap_a_loss.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import mcfa_fast as mf

TEMPERATURE = 0.1
STEPS, INSTANCES, CLASSES, FEATURES, WIDTH = 20, 256, 8, 32, 16


class QuadraticSupCon(nn.Module):
    """What is swapped out: the loss over the whole matrix of similarities."""

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        latents = nn.functional.normalize(latents, dim=1)
        itself = torch.eye(len(labels), dtype=torch.bool)
        logits = (latents @ latents.T / TEMPERATURE).masked_fill(itself, -torch.inf)
        positive = (labels[:, None] == labels[None, :]) & ~itself
        log_share = torch.where(positive, logits.log_softmax(dim=1), 0.0)
        return -(log_share.sum(dim=1) / positive.sum(dim=1)).mean()


def train(loss: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """The losses of a short training, from the same start with the same batches every time."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, FEATURES, generator=generator)
    encoder = nn.Linear(FEATURES, WIDTH)
    with torch.no_grad():
        encoder.weight.copy_(torch.randn(WIDTH, FEATURES, generator=generator) / FEATURES**0.5)
        encoder.bias.zero_()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.5)
    history = []
    for _ in range(STEPS):
        labels = torch.randint(CLASSES, (INSTANCES,), generator=generator)
        noise = torch.randn(INSTANCES, FEATURES, generator=generator)
        value = loss(encoder(centres[labels] + 2 * noise), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(value.item())
    return history


def main() -> dict[str, list[float]]:
    ours = mf.VtoVLoss(TEMPERATURE, reduction="mean")
    losses = {
        "quadratic": QuadraticSupCon(),
        "mcfa_fast": ours,
        "mcfa_fast, compiled": torch.compile(ours, fullgraph=True),
        "mcfa_fast, scripted": torch.jit.script(ours),
    }
    histories = {name: train(loss) for name, loss in losses.items()}
    for name, history in histories.items():
        print(f"{name:20} first {history[0]:.5f}  last {history[-1]:.5f}")
    return histories


if __name__ == "__main__":
    main()
