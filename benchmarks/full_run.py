"""How long a whole run takes, part by part, and that the native step changes no result.

Trains the paper's ZSL preset on AID (split 20/10:0), once with the extension's own step and once
with PyTorch's autograd, for several seeds, and writes ``benchmarks/results/full_run.md``:

    python benchmarks/full_run.py --data ../shared/data/aid
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, NamedTuple

import torch
import typer
from run import describe

import mcfa_fast as mf
from mcfa_fast.evaluation import evaluate

RESULTS = Path(__file__).parent / "results"
# One chunk that holds any batch: PyTorch's autograd on whole batches.
STEPS = {"native": None, "autograd": 10**9}


class Timed(NamedTuple):
    """One run: seconds by part, and both heads' accuracy in %."""

    training: float
    heads: float
    evaluation: float
    softmax: float
    nearest: float

    @property
    def seconds(self) -> float:
        return self.training + self.heads + self.evaluation


def execute(dataset: mf.data.Dataset, split_name: str, seed: int, chunk_size: int | None) -> Timed:
    """Train, fit all heads and evaluate two of them."""
    config = mf.MCFAConfig.paper("zsl", seed=seed, chunk_size=chunk_size)
    split = dataset.split(split_name, generalized=False)
    images = dataset.features[split.train], dataset.labels[split.train], dataset.semantics
    times = [time.perf_counter()]
    system = mf.Trainer(config, *images).fit()
    times.append(time.perf_counter())
    classifier = mf.MCFAClassifier().fit_heads(
        system, *images, unseen_classes=split.unseen_classes
    )
    times.append(time.perf_counter())
    accuracies = [
        100 * evaluate(classifier.with_head(head), dataset, split).accuracy
        for head in ("softmax", "nearest")
    ]
    times.append(time.perf_counter())
    parts = [end - start for start, end in pairwise(times)]
    return Timed(*parts, *accuracies)


def main(
    data: Annotated[Path, typer.Option(help="AID's dataset folder.")] = Path("../shared/data/aid"),
    split: Annotated[str, typer.Option(help="Split.")] = "20/10:0",
    seeds: Annotated[int, typer.Option(min=2, help="Number of seeds.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
) -> None:
    """Run and write the page."""
    torch.set_num_threads(threads)
    dataset = mf.data.load(data, features="512", semantics="text")
    about = describe()
    lines = [
        "# A whole run",
        "",
        f"AID, split {split}, the paper's ZSL preset: 50 epochs, heads, evaluation; "
        f"written by `benchmarks/full_run.py` on {about['machine']}, {threads} thread(s), "
        f"mcfa_fast {about['version']} at {about['commit']}, "
        f"PyTorch {about['torch']}. Means over {seeds} "
        "seeds; accuracies with their standard deviation.",
        "",
        "| step | seconds | training | heads | evaluation | softmax % | nearest % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, chunk_size in STEPS.items():
        runs = [execute(dataset, split, seed, chunk_size) for seed in range(seeds)]
        seconds = [mean(run.seconds for run in runs)]
        seconds += [mean(getattr(run, part) for run in runs) for part in Timed._fields[:3]]
        accuracies = [[getattr(run, head) for run in runs] for head in Timed._fields[3:]]
        cells = [f"{value:.1f}" for value in seconds]
        cells += [f"{mean(values):.1f} ± {stdev(values):.1f}" for values in accuracies]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    (RESULTS / "full_run.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
