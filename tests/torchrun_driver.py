"""What every rank does in `test_torchrun.py`: each system trained together, and alone.

Rank 0 writes a report: per system, by how much the two differ.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import toy_system  # noqa: F401 (registers itself)
from contract_data import SEEN, make_images, make_semantics, short

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.cli.launch import launched
from mcfa_fast.data.inputs import training_data
from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.registry import SYSTEMS
from mcfa_fast.training import Update, World

ROWS = 225  # in batches of 16, the last of which has one row: a rank has none of it
IMAGES, LABELS = (array[:ROWS] for array in make_images(SEEN, rows=12))
SEMANTICS = make_semantics()
TRAINABLE = [
    name for name, entry in SYSTEMS.items() if issubclass(entry.system.Config, TrainableConfig)
]
UNSEEN = make_images(np.array([20, 21, 22]), rows=20, seed=5)[0]


def options_of(system):
    return short(system, epochs=3, batch_size=16)


def fitted(system, group):
    classifier = ZeroShotClassifier(system, options=options_of(system))
    return classifier.fit(IMAGES, LABELS, SEMANTICS, group=group)


def difference(ours, theirs):
    """The largest, relative to the largest value."""
    scale = max(float(theirs.abs().max()), 1e-12) if theirs.numel() else 1.0
    return float((ours - theirs).abs().max()) / scale if theirs.numel() else 0.0


def compare(together, alone):
    states = together.system_.state_dict(), alone.system_.state_dict()
    histories = together.history_, alone.history_
    return {
        "epochs": len(together.history_),
        "weights": max(difference(states[0][name], states[1][name]) for name in states[1]),
        "losses": max(
            (abs(a[k] / b[k] - 1) for a, b in zip(*histories, strict=True) for k in b
             if k not in ("epoch", "seconds") and b[k] != 0),
            default=0.0,
        ),
        "scores": difference(
            *(torch.from_numpy(c.decision_function(UNSEEN)) for c in (together, alone))
        ),
        "predictions": float(np.mean(together.predict(UNSEEN) == alone.predict(UNSEEN))),
    }


class Gradients(Update):
    """Adds up the ranks' gradients and keeps them in place of a step."""

    def apply(self, optimizer):
        if self.world.group is not None:
            self._add_up(optimizer)
        self.found = [p.grad.clone() for group in optimizer.param_groups for p in group["params"]
                      if p.grad is not None]


def gradients(system, group):
    """Of the first batch, in double precision."""
    config = SYSTEMS[system].system.Config().replace(**{
        name: value for name, value in options_of(system).items() if "." not in name
    })
    data = training_data(IMAGES, LABELS, SEMANTICS, None, None)
    made = SYSTEMS[system].system(config, IMAGES.shape[1], SEMANTICS.shape[1])
    trainable = made.trainable(data)
    module = getattr(trainable, "module", None) or made.compatibility
    module.double()
    # From weights that are not those of the start, which are 0 in some systems.
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).double()
    update = Gradients(group)
    batch = next(iter(trainable.epoch(3, update.world)))
    double = {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point()
        else type(value)(*(t.double() if t.is_floating_point() else t for t in value))
        if hasattr(value, "_fields") else value
        for name, value in vars(batch).items()
    }
    if hasattr(trainable, "_eager"):
        trainable._step = trainable._eager  # the native step knows single precision alone
    losses = trainable.step(type(batch)(**double), update)
    return update.world.sum(losses.double()), update.found


def main(out):
    torch.set_num_threads(1)
    report = {}
    with launched("cpu") as (_, group):
        for system in TRAINABLE:
            together = fitted(system, group)
            alone = fitted(system, None)
            found = compare(together, alone)
            (losses, ours), (expected, theirs) = (gradients(system, g) for g in (group, None))
            found["gradients"] = max(map(difference, ours, theirs))
            found["double losses"] = difference(losses, expected)
            report[system] = found
            weights = torch.cat([v.reshape(-1).double() for v in together.system_.state_dict().values()])
            highest = World(group).highest(weights.clone())
            found["ranks agree"] = torch.equal(highest, weights)
        if World(group).first:
            (Path(out) / "report.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
