"""Training steps as the trainer takes them: draw a batch, forward, objective, backward, Adam."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import floor
import shapes
import training_steps
from measure import Runner, check_close
from shapes import Shape

import mcfa_fast as mf
from mcfa_fast.data.synthetic import synthetic

FEATURES, ATTRIBUTES = 512, 1024


class Case(NamedTuple):
    """Batches of ``instances`` of each of ``classes``, ``steps`` of them to an epoch."""

    sampler: str
    classes: int
    instances: int
    threads: int = shapes.THREADS[-1]
    steps: int = 1
    reference: bool = False

    def __str__(self) -> str:
        form = "-reference" if self.reference else ""
        return f"{self.sampler}{form}-{self.classes}x{self.instances}-t{self.threads}"

    def config(self) -> mf.MCFAConfig:
        """The paper's, or what the authors' code does, for batches of this size."""
        preset = mf.MCFAConfig.reference if self.reference else mf.MCFAConfig.paper
        return preset(
            sampler=self.sampler,
            classes_per_batch=self.classes,
            instances_per_class=self.instances,
            batch_size=self.classes * self.instances,
        )


def cases(quick: bool) -> list[Case]:
    """The comparisons of a quick or a full run."""
    if quick:
        return [Case("episodic", 3, 4, 1, 2, reference) for reference in (False, True)]
    return [
        *(
            Case("episodic", 5, k, threads, 8, reference)
            for k in (5, 10)
            for threads in shapes.THREADS
            for reference in (False, True)
        ),
        Case("batch", 64, 16),
        Case("batch", 64, 64),
        Case("batch", 64, 128),
    ]


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


def _epoch(contender: training_steps.Library | training_steps.Plain, _: None) -> None:
    contender.epoch()


def test_training_step(case: Case, record: Callable) -> None:
    config = case.config()
    batch = case.classes * case.instances
    data = training_steps.Data(
        config,
        # As many steps to an epoch as asked for, and all classes in each batch.
        synthetic(case.classes, case.instances * case.steps, FEATURES, ATTRIBUTES),
    )
    expected = training_steps.oracle(data)
    check_close("mcfa_fast", training_steps.library_values(data), expected)
    contenders = [training_steps.Library, training_steps.Plain, training_steps.PlainFused]
    if case.reference:
        check_close("authors", training_steps.authors_values(data), expected)
        contenders.append(training_steps.Authors)
    record(
        [Runner(kind.name, lambda: None, partial(_epoch, kind(data))) for kind in contenders],
        work(case),
        per_call=case.steps,
        job="training",
        sampler=case.sampler,
        preset="reference" if case.reference else "paper",
        n=batch,
        d=config.latent_features,
        c=case.classes,
        part="step",
        threads=case.threads,
    )
