"""What every rank does in `test_torchrun.py`: each system trained together, and alone.

Rank 0 writes a report of by how much the two differ, and the folder of a whole run.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from contract_data import SEEN, make_images, make_semantics, short

from mcfa_fast.classifiers import RunConfig, ZeroShotClassifier
from mcfa_fast.cli.launch import launched
from mcfa_fast.data import load
from mcfa_fast.data.inputs import training_data
from mcfa_fast.experiments.run import run
from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.registry import SYSTEMS, make_known
from mcfa_fast.training import Update, World

ROWS = 225  # in batches of 16, the last of which has one row: a rank has none of it
IMAGES, LABELS = (array[:ROWS] for array in make_images(SEEN, rows=12))
SEMANTICS = make_semantics()
UNSEEN = make_images(np.array([20, 21, 22]), rows=20, seed=5)[0]
TRAINABLE = [
    name for name, entry in SYSTEMS.items() if issubclass(entry.system.Config, TrainableConfig)
]
TOGETHER = [*TRAINABLE, "toy_system:toy"]  # and one that knows nothing of ranks
CASES = {
    **{system: (system, {}) for system in TOGETHER},
    "rows": ("mcfa", {"class_weighting": "rows", "noise": "row", "positives": "in"}),
    "means": ("mcfa", {"contrast": "means"}),
    "chunks": ("mcfa", {"chunk_size": 3}),
    "episodes": (
        "mcfa",
        {"sampler": "episodic", "classes_per_batch": 3, "instances_per_class": 3},
    ),
}
RUN = {
    "sampler": "batch",
    "batch_size": 200,
    "epochs": 6,
    "latent_features": 8,
    "visual_hidden": 32,
    "semantic_hidden": 16,
    "softmax.epochs": 1,
    "selection": "calibration",
    "selection.folds": 2,
}


def options_of(system):
    return short(system, epochs=3, batch_size=16)


def difference(ours, theirs):
    """The largest, relative to the largest value."""
    if not theirs.numel():
        return 0.0
    ours, theirs = ours.double(), theirs.double()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


def loss_difference(ours, theirs):
    """The largest relative one of the losses of an epoch."""
    pairs = [
        (a[name], b[name])
        for a, b in zip(ours, theirs, strict=True)
        for name in b.keys() - {"epoch", "seconds"}
    ]
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs)


def trained(system, group):
    classifier = ZeroShotClassifier(system, options=options_of(system))
    return classifier.fit(IMAGES, LABELS, SEMANTICS, group=group)


def comparison(system, group):
    together, alone = (trained(system, given) for given in (group, None))
    ours, theirs = (classifier.system_.state_dict() for classifier in (together, alone))
    weights = torch.cat([value.double().reshape(-1) for value in ours.values()])
    highest = World(group).highest(weights.clone())
    scores = [torch.from_numpy(c.decision_function(UNSEEN)) for c in (together, alone)]
    return {
        "epochs": len(together.history_),
        "ranks agree": torch.equal(highest, weights),
        "weights": max(difference(ours[name], theirs[name]) for name in theirs),
        "losses": loss_difference(together.history_, alone.history_),
        "scores": difference(*scores),
        "predictions": float(np.mean(together.predict(UNSEEN) == alone.predict(UNSEEN))),
    }


class Gradients(Update):
    """Adds up the ranks' gradients and keeps them, in place of a step."""

    def apply(self, optimizer):
        if self.world.group is not None:
            self._add_up(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.found = [p.grad.clone() for p in parameters if p.grad is not None]


def doubled(value):
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.double()
    return type(value)(*map(doubled, value)) if hasattr(value, "_fields") else value


def gradients(system, changes, group):
    """The losses and gradients of a batch in double precision, from weights near the first."""
    options = {key: value for key, value in options_of(system).items() if "." not in key}
    entry = SYSTEMS[system].system
    config = entry.Config().replace(**options, **changes)
    made = entry(config, IMAGES.shape[1], SEMANTICS.shape[1])
    trainable = made.trainable(training_data(IMAGES, LABELS, SEMANTICS, None, None))
    module = trainable.module if hasattr(trainable, "module") else made.compatibility
    module.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # some weights are 0 at first, where hinges have corners
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).double()
    if hasattr(trainable, "_eager"):
        trainable._step = trainable._eager  # the native step knows single precision alone
    update = Gradients(group)
    batch = next(iter(trainable.epoch(3, update.world)))
    batch = type(batch)(**{name: doubled(value) for name, value in vars(batch).items()})
    losses = trainable.step(batch, update)
    return update.world.sum(losses.double()), update.found


def gradient_comparison(system, changes, group):
    (losses, ours), (expected, theirs) = (gradients(system, changes, g) for g in (group, None))
    assert len(ours) == len(theirs) > 0
    return {
        "gradients": max(map(difference, ours, theirs)),
        "losses": difference(losses, expected),
    }


def main(out):
    torch.set_num_threads(1)
    make_known("toy_system:toy")
    with launched("cpu") as (_, group):
        report = {system: comparison(system, group) for system in TOGETHER}
        report["gradients"] = {
            case: gradient_comparison(*what, group) for case, what in CASES.items()
        }
        config = RunConfig.of("mcfa", task="gzsl").replace(RUN)
        run(config, load("digits"), "7/3:0", fixed=RUN, run_dir=out / "whole", group=group)
        if World(group).first:
            (out / "report.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
