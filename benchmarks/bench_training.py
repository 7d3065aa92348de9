"""One training step: draw a batch, forward, objective, backward, Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import floor
import peers
import shapes
import torch
from measure import Runner, check_close
from shapes import Shape
from torch import Tensor

import mcfa_fast as mf
from mcfa_fast.data.synthetic import synthetic
from mcfa_fast.models import MCFAOutput
from mcfa_fast.training.sampler import make_sampler

FEATURES, ATTRIBUTES = 512, 1024


class Case(NamedTuple):
    """A batch of ``instances`` of each of ``classes``."""

    sampler: str
    classes: int
    instances: int
    threads: int = shapes.THREADS[-1]

    def __str__(self) -> str:
        return f"{self.sampler}-{self.classes}x{self.instances}-t{self.threads}"

    def config(self) -> mf.MCFAConfig:
        """The paper's, for batches of this size."""
        return mf.MCFAConfig.paper(
            sampler=self.sampler,
            classes_per_batch=self.classes,
            instances_per_class=self.instances,
            batch_size=self.classes * self.instances,
        )


def cases(quick: bool) -> list[Case]:
    """The comparisons of a quick or a full run."""
    if quick:
        return [Case("episodic", 3, 4, threads=1)]
    return [
        *(Case("episodic", 5, k, threads) for k in (5, 10) for threads in shapes.THREADS),
        Case("batch", 64, 16),
        Case("batch", 64, 128),
    ]


class Step:
    """What :class:`mcfa_fast.Trainer` does per batch, with an objective of choice."""

    def __init__(self, case: Case, objective: Callable[[MCFAOutput], Tensor]):
        config = case.config()
        # Every instance is in every batch, so each pass over the sampler is one step.
        data = synthetic(case.classes, case.instances, FEATURES, ATTRIBUTES)
        features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
        self.model = mf.MCFA(FEATURES, ATTRIBUTES, config)
        self.features = self.model.scaler.fit(features)(features)
        self.semantics = torch.from_numpy(data.semantics)
        self.sampler = make_sampler(config, labels, config.generator("sampler"))
        self.noise = config.generator("noise")
        self.objective = objective
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, amsgrad=True, fused=True
        )

    def __call__(self) -> None:
        for batch in self.sampler:
            output = self.model(
                self.features.index_select(0, batch.rows),
                self.semantics.index_select(0, batch.classes),
                batch.labels,
                self.noise,
            )
            loss = self.objective(output)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def value_and_gradients(self) -> list[Tensor]:
        """Of the whole data as one batch in float64, from the initial weights."""
        model = mf.MCFA(FEATURES, ATTRIBUTES, self.model.config).double()
        labels = torch.arange(len(self.features)) * len(self.semantics) // len(self.features)
        noise = self.model.config.generator("noise")
        output = model(self.features.double(), self.semantics.double(), labels, noise)
        loss = self.objective(output)
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def work(case: Case) -> floor.Work:
    """The floor of one step."""
    config = case.config()
    n, c, d = case.classes * case.instances, case.classes, config.latent_features
    total = floor.contrastive("fused", Shape(n, d, c))
    total = total.plus(floor.alignment(Shape(n, d, c)))
    sides = ((n, FEATURES, config.visual_hidden), (c, ATTRIBUTES, config.semantic_hidden))
    weights = 0
    for rows, inputs, hidden in sides:
        for layer in (
            floor.linear(rows, inputs, hidden, first=True),
            floor.linear(rows, hidden, 2 * d),
            floor.linear(n + c, d, hidden),
            floor.linear(n + c, hidden, inputs),
        ):
            total = total.plus(layer)
        weights += 2 * inputs * hidden + 3 * hidden * d
    return total.plus(floor.adam(weights))


def test_training_step(case: Case, record: Callable) -> None:
    config = case.config()
    library = mf.MCFALoss(config)
    steps = {
        peers.LIBRARY: Step(case, lambda output: library(output).total),
        peers.PLAIN: Step(case, lambda output: peers.plain_objective(config, output)),
    }
    expected = steps[peers.PLAIN].value_and_gradients()
    check_close(peers.LIBRARY, steps[peers.LIBRARY].value_and_gradients(), expected)
    record(
        [Runner(name, lambda: None, lambda _, step=step: step()) for name, step in steps.items()],
        work(case),
        job="training",
        sampler=case.sampler,
        n=case.classes * case.instances,
        d=config.latent_features,
        c=case.classes,
        part="step",
        threads=case.threads,
    )
