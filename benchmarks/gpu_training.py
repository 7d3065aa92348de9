"""Training on a GPU: the trainer against clean PyTorch, and the whole set as one batch.

    python benchmarks/gpu_training.py --output benchmarks/results/gpu_training.json

Data shaped like the paper's: 70 classes with 512 visual and 1024 semantic features, of which 60 are
trained on, with 800 instances each.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from training_steps import plain_loss

import mcfa_fast as mf
from mcfa_fast.data.synthetic import synthetic

CLASSES, SEEN, INSTANCES, FEATURES, ATTRIBUTES = 70, 60, 800, 512, 1024
WHOLE = {"sampler": "batch", "batch_size": None}


def seconds_per_step(trainer: mf.Trainer, epochs: int) -> float:
    """Of whole epochs, after one that captures the graph."""
    trainer._run_epoch(1)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for epoch in range(2, 2 + epochs):
        trainer._run_epoch(epoch)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / (epochs * len(trainer._sampler))


def plain_seconds_per_step(trainer: mf.Trainer, steps: int) -> float:
    """Of the same batches by PyTorch's own operations and optimiser."""
    model = trainer.model
    optimizer = torch.optim.Adam(model.parameters(), lr=1.5e-4, amsgrad=True)
    batches = trainer._features.batches(trainer._sampler)
    times = []
    for _, (batch, features) in zip(range(steps), batches, strict=False):
        torch.cuda.synchronize()
        start = time.perf_counter()
        semantics = trainer._semantics[batch.classes]
        loss = plain_loss(model, features, semantics, batch.labels, trainer._noise_generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    data = synthetic(CLASSES, INSTANCES, FEATURES, ATTRIBUTES)
    seen = data.labels < SEEN
    arrays = data.features[seen], data.labels[seen], data.semantics

    def trainer(**options: object) -> mf.Trainer:
        return mf.Trainer(mf.MCFAConfig.paper("zsl", **options), *arrays, device="cuda")

    ours = seconds_per_step(trainer(), epochs=1)
    result = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "batch 25": {"mcfa_fast": ours, "plain": plain_seconds_per_step(trainer(), steps=100)},
        "run of 50 epochs, seconds": ours * 50 * len(trainer()._sampler),
        "whole set": {
            precision: seconds_per_step(trainer(precision=precision, **WHOLE), epochs=50)
            for precision in ("float32", "bf16")
        },
    }
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
