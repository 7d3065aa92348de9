"""Classification of a file of features, from the disk to class indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import floor
import numpy as np
import peers
import pytest
import shapes
import torch
from measure import Runner, threads
from shapes import Files

import mcfa_fast as mf
from mcfa_fast.data.synthetic import synthetic
from mcfa_fast.systems.mcfa.system import MCFASystem

ATTRIBUTES = 1024
PLAIN_ROWS = 8192
CHECKED_ROWS = 4096


class Case(NamedTuple):
    shape: Files
    head: str = "softmax"
    dtype: str = "float32"
    threads: int = shapes.THREADS[-1]

    def __str__(self) -> str:
        return f"{self.head}-{self.dtype}-{self.shape}-t{self.threads}"


def cases(quick: bool) -> list[Case]:
    """The comparisons of a quick or a full run."""
    if quick:
        return [Case(shapes.TINY_FILES, threads=1)]
    whole = shapes.FILES
    return [
        Case(whole),
        Case(whole, "nearest"),
        Case(whole, "ensemble"),
        Case(whole._replace(n=whole.n // 4), dtype="float16"),
        Case(whole._replace(n=whole.n // 4), threads=1),
    ]


@pytest.fixture
def mapped(case: Case, tmp_path: Path) -> Iterator[np.ndarray]:
    """Features in a file, mapped; the same rows over and over."""
    path = tmp_path / "features.npy"
    shape = (case.shape.n, case.shape.f)
    writable = np.lib.format.open_memmap(path, "w+", case.dtype, shape)
    block = np.random.default_rng(0).random((min(len(writable), 2**14), case.shape.f))
    for start in range(0, len(writable), len(block)):
        part = writable[start : start + len(block)]
        part[:] = block[: len(part)]
    writable.flush()
    yield np.load(path, mmap_mode="r")
    path.unlink()


def classifier(case: Case) -> mf.MCFAClassifier:
    """Untrained VAEs and classifiers over them: the values do not matter for the time."""
    few = {"softmax.epochs": 1, "softmax.seen_samples": 1, "softmax.unseen_samples": 1}
    with threads(1):
        data = synthetic(case.shape.c, 4, case.shape.f, ATTRIBUTES)
        model = mf.MCFA(case.shape.f, ATTRIBUTES, mf.MCFAConfig.paper("gzsl"))
        model.scaler.fit(torch.from_numpy(data.features))
        seen = data.labels < case.shape.c * 4 // 5
        return mf.MCFAClassifier(task="gzsl", head=case.head, options=few).fit_heads(
            MCFASystem.of_model(model), data.features[seen], data.labels[seen], data.semantics
        )


@torch.no_grad()
def plain(classifier: mf.MCFAClassifier, features: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Best class of every row, by the classifier's own modules, a chunk after the other."""
    heads = classifier.heads_
    encoder, softmax = classifier.system_.model.to(dtype), heads["softmax"].layer.to(dtype)
    classes = encoder.encode_semantic(classifier.table_.semantics.to(dtype))[0]
    best = []
    for start in range(0, len(features), PLAIN_ROWS):
        rows = torch.from_numpy(np.array(features[start : start + PLAIN_ROWS])).to(dtype)
        latents = encoder.encode_visual(rows)[0]
        cosines = torch.nn.functional.normalize(latents) @ torch.nn.functional.normalize(classes).T
        if classifier.head == "nearest":
            scores = cosines
        else:
            scores = softmax(latents)
        if classifier.head == "ensemble":
            scores = 0.5 * scores + 0.5 * heads["ensemble"].sharpness * cosines
        best.append(scores.argmax(dim=1))
    return torch.cat(best)


def test_classification(case: Case, mapped: np.ndarray, record: Callable) -> None:
    model, reference = classifier(case), classifier(case)
    found = torch.from_numpy(model.predict(mapped[:CHECKED_ROWS]))
    wanted = plain(reference, mapped[:CHECKED_ROWS], torch.float64)
    # Classes whose scores agree to the last digits may change places.
    assert (found == wanted).double().mean() >= 0.999
    n, f, c = case.shape
    config = model.system_.config
    hidden, latent = config.visual_hidden, config.latent_features
    other = classifier(case)
    record(
        [
            Runner(peers.LIBRARY, lambda: None, lambda _: model.predict(mapped)),
            Runner(peers.PLAIN, lambda: None, lambda _: plain(other, mapped, torch.float32)),
        ],
        floor.encoder(n, f, hidden, latent),
        job="classification",
        n=n,
        d=f,
        c=c,
        head=case.head,
        dtype=case.dtype,
        part="forward",
        threads=case.threads,
    )
