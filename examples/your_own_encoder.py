"""Bring features of an image encoder of your own, and classify what they cannot name.

The library begins behind the encoder: whatever turns an image into a vector will do. Here a small
convolutional network learns the seen digits with one of the library's losses, its features of all
images become a dataset folder, and a zero-shot classifier is trained on that folder as
``mcfa-fast train --data FOLDER`` would.

Usage: python examples/your_own_encoder.py [FOLDER]
Needs: pip install 'mcfa_fast[zsl]'
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import mcfa_fast as mf
from mcfa_fast.evaluation import Evaluation, evaluate

SPLIT = "7/3:0"
EPOCHS, BATCH, FEATURES = 15, 128, 64


class Encoder(nn.Module):
    """Two convolutions and a linear layer: [N, 1, 8, 8] images to [N, F] features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, FEATURES),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def train_encoder(images: Tensor, labels: Tensor) -> Encoder:
    """An encoder that brings images of one class together."""
    torch.manual_seed(0)
    encoder = Encoder()
    loss = mf.VtoVLoss(temperature=0.1, reduction="mean")
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            value = loss(encoder(images[rows]), labels[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return encoder.eval()


@torch.no_grad()
def features_of(encoder: Encoder, images: Tensor) -> np.ndarray:
    """What ``features.npy`` holds: one row for every image, float32."""
    return torch.cat([encoder(part) for part in images.split(512)]).numpy()


def main(folder: Path) -> Evaluation:
    digits = mf.data.load("digits")
    images = torch.from_numpy(digits.features).reshape(-1, 1, 8, 8) / 16
    labels = torch.from_numpy(digits.labels)

    # The encoder must not see the classes that it will be asked about.
    train = torch.from_numpy(digits.split(SPLIT, generalized=True).train)
    encoder = train_encoder(images[train], labels[train])

    mf.data.save_folder(replace(digits, features=features_of(encoder, images)), folder)
    print("wrote", *sorted(path.name for path in folder.iterdir()))

    dataset = mf.data.load(folder)
    split = dataset.split(SPLIT, generalized=True)
    classifier = mf.ZeroShotClassifier(task="gzsl").fit(
        dataset.rows(split.train), dataset.labels[split.train], dataset.semantics
    )
    result = evaluate(classifier, dataset, split)
    print(result)
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as parent:
            main(Path(parent) / "digits_encoded")
