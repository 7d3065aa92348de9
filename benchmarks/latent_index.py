"""Nearest of a million classes: recall against throughput for each kind of index.

    python benchmarks/latent_index.py            # about ten minutes on two cores
    python benchmarks/latent_index.py --quick    # few vectors: whether everything still works

Writes ``latent_index.json``, ``latent_index.md`` and ``latent_index.svg`` to
``benchmarks/results/``. Recall is the share of the five nearest classes by brute force that a
search finds; throughput is set against brute force in plain PyTorch, timed in the same rounds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import run
import torch
import typer
from torch import Tensor
from torch.nn.functional import normalize

import mcfa_fast as mf

K = 5
DIM = 64
PLAIN = "plain PyTorch"
FLAT = "flat"
EFFORTS = {"ivf": (1, 2, 4, 8, 16, 32, 64, 128, 256), "hnsw": (8, 16, 32, 64, 128, 256, 512)}
RECALL, SPEEDUP = 0.99, 10.0
ROUNDS = 3
SECONDS = 0.3


class Data(NamedTuple):
    """Unit vectors [M, D] of the classes and queries [N, D] near some of them."""

    vectors: Tensor
    queries: Tensor


def clustered(count: int, queries: int, generator: torch.Generator) -> Data:
    """One centre for every hundred classes: centres N(0, I), classes N(centre, 0.5² I)."""
    centres = torch.randn(max(count // 100, 1), DIM, generator=generator)
    own = torch.randint(len(centres), (count,), generator=generator)
    return _around(centres[own] + 0.5 * torch.randn(count, DIM, generator=generator), queries)


def random(count: int, queries: int, generator: torch.Generator) -> Data:
    """Classes N(0, I): nothing to go by, the hardest case."""
    return _around(torch.randn(count, DIM, generator=generator), queries)


def _around(vectors: Tensor, queries: int) -> Data:
    """Queries N(class, 0.25² I) of evenly spaced classes: latents of images."""
    chosen = vectors[torch.linspace(0, len(vectors) - 1, queries).long()]
    noise = torch.randn(chosen.shape, generator=torch.Generator().manual_seed(1))
    return Data(normalize(vectors), normalize(chosen + 0.25 * noise))


DATA = {"clustered": clustered, "random": random}


def plain(vectors: Tensor, queries: Tensor) -> Tensor:
    """The K nearest by the full matrix of similarities, for a few queries at a time."""
    step = max(1, 2**24 // len(vectors))
    return torch.cat([(part @ vectors.T).topk(K, dim=1).indices for part in queries.split(step)])


def recall(found: Tensor, wanted: Tensor) -> float:
    """Mean share of each row's wanted ids that were found."""
    return (found[:, :, None] == wanted[:, None, :]).any(dim=1).float().mean().item()


def rate(search: Callable[[Tensor], Any], queries: Tensor, seconds: float) -> float:
    """Queries per second, over about so many seconds."""
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < seconds:
        search(queries)
        done += len(queries)
    return done / (time.perf_counter() - start)


def measure(name: str, count: int, queries: int, seconds: float) -> Iterator[dict[str, Any]]:
    """A record for every index and effort on one set of vectors."""
    data = DATA[name](count, queries, torch.Generator().manual_seed(0))
    wanted = plain(data.vectors, data.queries)
    ids = torch.arange(count)
    few = data.queries[:64]
    for kind in (FLAT, *EFFORTS):
        index = mf.LatentIndex(DIM, kind=kind)
        index.add(data.vectors, ids)
        start = time.perf_counter()
        index.build()
        built = time.perf_counter() - start
        for effort in EFFORTS.get(kind, (None,)):

            def search(part: Tensor, index=index, effort=effort) -> Tensor:
                return index.search(part, K, effort=effort)[1]

            share = recall(search(data.queries), wanted)
            own = data.queries[:512] if kind == FLAT else data.queries
            rates = [
                (
                    rate(lambda part: plain(data.vectors, part), few, seconds),
                    rate(search, own, seconds),
                )
                for _ in range(ROUNDS)
            ]
            yield {
                "data": name,
                "kind": kind,
                "effort": effort,
                "vectors": count,
                "build_seconds": built,
                "recall": share,
                "queries_per_second": median(ours for _, ours in rates),
                "plain_queries_per_second": median(theirs for theirs, _ in rates),
                "times_faster": median(ours / theirs for theirs, ours in rates),
            }


def best(records: list[dict[str, Any]], data: str, kind: str) -> dict[str, Any] | None:
    """The fastest search of a kind that reaches the recall; None when none does."""
    fit = [r for r in records if (r["data"], r["kind"]) == (data, kind) and r["recall"] >= RECALL]
    return max(fit, key=lambda record: record["times_faster"], default=None)


def page(records: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The results as Markdown."""
    count = records[0]["vectors"]
    load = about["load_average"]
    lines = [
        f"# Nearest of {count:,} classes",
        "",
        f"D = {DIM}, cosine, top {K}, {about['threads']} threads of {about['machine']}, PyTorch "
        f"{about['torch']}; written by `python benchmarks/latent_index.py` (load average before "
        f"the run: {load:.1f}). Brute force is the product of all similarities and `topk` in plain "
        "PyTorch, timed in the same rounds. *Clustered*: one centre N(0, I) for every hundred "
        "classes, classes N(centre, 0.5² I). *Random*: classes N(0, I). Queries: N(class, "
        "0.25² I). The lengths of all are then made 1.",
        "",
        f"Fastest search with recall@{K} ≥ {RECALL} (target on the clustered set: ≥ "
        f"{SPEEDUP:.0f}× brute force):",
        "",
        "| vectors | index | built in | effort | recall | queries/s | × brute force |",
        "|---|---|---|---|---|---|---|",
    ]
    for data in DATA:
        for kind in (FLAT, *EFFORTS):
            row = best(records, data, kind)
            if row is None:
                lines.append(f"| {data} | {kind} | | | not reached | | |")
                continue
            lines.append(
                f"| {data} | {kind} | {row['build_seconds']:.0f} s | {row['effort'] or ''} "
                f"| {row['recall']:.4f} | {row['queries_per_second']:,.0f} "
                f"| {row['times_faster']:.1f} |"
            )
    lines += [
        "",
        "![recall against throughput](latent_index.svg)",
        "",
        "All searches:",
        "",
        "| vectors | index | effort | recall | queries/s | × brute force |",
        "|---|---|---|---|---|---|",
    ]
    for row in records:
        lines.append(
            f"| {row['data']} | {row['kind']} | {row['effort'] or ''} | {row['recall']:.4f} "
            f"| {row['queries_per_second']:,.0f} | {row['times_faster']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """One curve per kind of index and set of vectors."""
    import plots  # needs matplotlib

    figure, axes = plots.pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for data, line in zip(DATA, ("-", "--"), strict=True):
        for colour, kind in enumerate((FLAT, *EFFORTS)):
            rows = [r for r in records if (r["data"], r["kind"]) == (data, kind)]
            x, y = [r["recall"] for r in rows], [r["queries_per_second"] for r in rows]
            axes.semilogy(x, y, f"o{line}", ms=3, color=f"C{colour}", label=f"{kind}, {data}")
    brute = median(record["plain_queries_per_second"] for record in records)
    axes.axhline(brute, color="black", lw=0.8, label="brute force in plain PyTorch")
    axes.set_title(f"{records[0]['vectors']:,} classes, D = {DIM}, top {K}", fontsize=9)
    axes.set_xlabel(f"recall@{K}")
    axes.set_ylabel("queries per second")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, metadata=plots.METADATA)
    plots.pyplot.close(figure)


def main(
    quick: Annotated[bool, typer.Option(help="Few vectors.")] = False,
    results: Annotated[Path, typer.Option(help="Where to write.")] = run.HERE / "results",
) -> None:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    count, queries, seconds = (5000, 200, 0.001) if quick else (1_000_000, 2048, SECONDS)
    records = []
    for name in DATA:
        for record in measure(name, count, queries, seconds):
            records.append(record)
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in record.items()})
    about = {**run.describe(), "threads": torch.get_num_threads(), "load_average": load}
    results.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"about": about, "records": records}, indent=1)
    (results / "latent_index.json").write_text(content + "\n")
    (results / "latent_index.md").write_text(page(records, about))
    if importlib.util.find_spec("matplotlib") is None:
        print("No plot: matplotlib is not installed")
    else:
        draw(records, results / "latent_index.svg")


if __name__ == "__main__":
    typer.run(main)
