"""Accuracy on WHU-RS19 with no training image at all: class texts, and all images as one set.

    python benchmarks/without_training.py ../shared/data/whu_rs19 --results FOLDER

Every class is a candidate, nothing is chosen: strengths are the defaults. Writes
``all_classes.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn.functional import normalize

from mcfa_fast import data
from mcfa_fast.classifiers.transductive import transduce
from mcfa_fast.evaluation.metrics import mean_class_accuracy

ENCODERS = ("clip_rn50", "clip_b32", "georsclip_b32")
HEAD = """# {name}: all {classes} classes without any seen class

{images} images, in %: share of right ones, and in parentheses the mean over classes. Text matching
takes images by themselves; transductive, all of them are classified together with the default
strengths.

| encoder | text matching | transductive |
|---|---|---|
"""


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    results: Annotated[Path, typer.Option(help="Where to write.")],
) -> None:
    """Classify all images among all classes, by their texts alone."""
    lines = []
    for encoder in ENCODERS:
        dataset = data.load(str(folder), features=encoder, semantics=encoder)
        images = torch.from_numpy(np.array(dataset.features, dtype=np.float32))
        scores = normalize(images, dim=1) @ normalize(torch.from_numpy(dataset.semantics), dim=1).T
        found = {"text matching": scores.numpy(), "transductive": transduce(scores, images)}
        cells = [cell(dataset.labels, values.argmax(axis=1)) for values in found.values()]
        lines.append(f"| `{encoder}` | {' | '.join(cells)} |")
    head = HEAD.format(
        name=dataset.name, classes=len(dataset.class_names), images=len(dataset.labels)
    )
    text = head + "\n".join(lines) + "\n"
    results.mkdir(parents=True, exist_ok=True)
    (results / "all_classes.md").write_text(text)
    print(text, end="")


def cell(labels: np.ndarray, predictions: np.ndarray) -> str:
    """Overall accuracy, and the mean over classes."""
    overall = (labels == predictions).mean()
    return f"{100 * overall:.1f} ({100 * mean_class_accuracy(labels, predictions):.1f})"


if __name__ == "__main__":
    typer.run(main)
