"""The embedding space in two dimensions: images and class descriptors of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.isotonic import isotonic_regression
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from mcfa_fast.classifiers.zero_shot import ZeroShotClassifier
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.reporting.palette import CLASS_COLOURS
from mcfa_fast.reporting.svg import hue, printable
from mcfa_fast.systems.base import Embeds

__all__ = ["EmbeddingSample", "draw_map", "embed_pca", "embed_tsne", "sample_embeddings"]

_IMAGES = 750
"""At most about so many images are shown, the same number of every class."""

_SHAPES = "osD^v"


@dataclass(frozen=True, eq=False)
class EmbeddingSample:
    """Embeddings of unit length: some images of every class, and every class's descriptor.

    Attributes:
        images: [n, D].
        image_classes: [n] class index of each.
        descriptors: [K, D].
        classes: [K] class index of each.
        unseen: [K] whether the class is unseen.
        names: [K].
        training: whether the images of seen classes are training images (there are no others in a
            split that is not generalized) and not test images.
    """

    images: np.ndarray
    image_classes: np.ndarray
    descriptors: np.ndarray
    classes: np.ndarray
    unseen: np.ndarray
    names: tuple[str, ...]
    training: bool


def sample_embeddings(
    classifier: ZeroShotClassifier, dataset: Dataset, split: str
) -> EmbeddingSample:
    """Embeds a random choice of a split's images, always the same one, and the descriptors.

    Args:
        classifier: its system embeds.
        dataset: where its images come from.
        split: name of the split that it was trained on.

    Raises:
        ValueError: when the classifier was trained on other classes or features than these.
    """
    names = classifier.class_names_
    if names[: len(dataset.class_names)] != dataset.class_names:
        raise ValueError(f"{dataset.name}: its classes are not those that the run was trained on")
    if dataset.features.shape[1] != classifier.n_features_in_:
        raise ValueError(
            f"{dataset.name}: expected the {classifier.n_features_in_} features that the run was "
            f"trained on, got {dataset.features.shape[1]}"
        )
    drawn = dataset.split(split, generalized=classifier.run_.task == "gzsl")
    if not np.array_equal(drawn.seen_classes, classifier.seen_classes_):
        raise ValueError(
            f"{dataset.name}: split {drawn.name} has other seen classes than the run was trained on"
        )
    classes = np.union1d(classifier.seen_classes_, classifier.unseen_classes_)
    seen_rows = drawn.test_seen if drawn.generalized else drawn.train
    rows = _choose(np.concatenate([seen_rows, drawn.test_unseen]), dataset.labels, len(classes))
    system = cast(Embeds, classifier.system_)
    images = torch.cat([system.embed(chunk) for chunk in dataset.rows(rows).chunks()])
    descriptors = system.prototypes(classifier.table_.semantics[torch.from_numpy(classes)])
    return EmbeddingSample(
        images=_unit(images.numpy()),
        image_classes=dataset.labels[rows],
        descriptors=_unit(descriptors.numpy()),
        classes=classes,
        unseen=np.isin(classes, classifier.unseen_classes_),
        names=tuple(names[label] for label in classes),
        training=not drawn.generalized,
    )


def _choose(rows: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """As many of the rows of every class, in ascending order so that a memory map is read once."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(rows)
    chosen = [
        own[: max(1, _IMAGES // classes)]
        for label in np.unique(labels[rows])
        if (own := rows[labels[rows] == label]).size
    ]
    return np.sort(np.concatenate(chosen))


def _unit(embeddings: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(norms, np.finfo(embeddings.dtype).tiny)
    # A plane needs two dimensions; a one-dimensional space has them with a constant.
    return np.pad(unit, ((0, 0), (0, max(0, 2 - unit.shape[1]))))


def embed_pca(sample: EmbeddingSample) -> tuple[np.ndarray, float]:
    """Images and descriptors [n + K, 2] on the first two principal axes of both together.

    Returns:
        The places, and the share of the variance that these axes hold.
    """
    pca = PCA(n_components=2, svd_solver="full")
    places = pca.fit_transform(np.concatenate([sample.images, sample.descriptors]))
    return places, float(np.nan_to_num(pca.explained_variance_ratio_).sum())


def embed_tsne(sample: EmbeddingSample) -> np.ndarray:
    """t-SNE [n + K, 2] of images and descriptors together, the same on every call."""
    points = np.concatenate([sample.images, sample.descriptors])
    perplexity = min(30.0, (len(points) - 1) / 3)
    # With more threads the sums are added in another order every time.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(points)


def draw_map(sample: EmbeddingSample, places: np.ndarray, title: str) -> Figure:
    """Images as dots, descriptors as larger marks; unseen classes in colour and named."""
    unseen = np.flatnonzero(sample.unseen)
    figure = Figure(figsize=(5.6, max(4.6, 0.14 * len(unseen))), layout="constrained")
    axes = figure.add_subplot()
    images, descriptors = np.split(places, [len(sample.images)])
    of_seen = np.isin(sample.image_classes, sample.classes[~sample.unseen])
    dots: dict[str, Any] = {"ls": "", "ms": 2.8, "mew": 0}
    axes.plot(*images[of_seen].T, "o", color=hue("faint"), alpha=0.55, **dots)
    for position, row in enumerate(unseen):
        own = sample.image_classes == sample.classes[row]
        axes.plot(*images[own].T, "o", color=_colour(position), alpha=0.75, **dots)
    marks: dict[str, Any] = {"ls": "", "zorder": 4}
    axes.plot(
        *descriptors[~sample.unseen].T,
        "P",
        ms=5,
        color=hue("muted"),
        mec=hue("surface"),
        mew=0.7,
        **marks,
    )
    for position, row in enumerate(unseen):
        shape = _SHAPES[position // len(CLASS_COLOURS) % len(_SHAPES)]
        axes.plot(
            *descriptors[[row]].T,
            shape,
            ms=7,
            color=_colour(position),
            mec=hue("ink"),
            mew=0.9,
            **marks,
        )
    _name_beside(axes, descriptors[unseen], [sample.names[row] for row in unseen])
    axes.set(xticks=[], yticks=[], title=title)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=hue("grid"))
    _explain(figure)
    return figure


def _name_beside(axes: Axes, places: np.ndarray, names: list[str]) -> None:
    """Names in a column beside the map, about as high as their places, with a line to each.

    Beside the places themselves names would cover each other: descriptors lie close together.
    """
    low, high = axes.get_ylim()
    wanted = (places[:, 1] - low) / (high - low)
    for position, height in enumerate(_spread(wanted)):
        axes.annotate(
            printable(names[position], 18),
            places[position],
            xytext=(1.05, height),
            textcoords="axes fraction",
            va="center",
            size=7.2,
            color=_colour(position),
            arrowprops={
                "arrowstyle": "-",
                "color": _colour(position),
                "lw": 0.6,
                "alpha": 0.7,
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )


def _spread(heights: np.ndarray) -> np.ndarray:
    """The heights in 0..1 nearest to the given ones, in their order, that keep a distance."""
    order = np.argsort(heights, kind="stable")
    distance = min(0.045, 1 / len(order))
    # Least squares under h[i + 1] - h[i] >= distance is isotonic regression of h[i] - i·distance.
    steps = distance * np.arange(len(order))
    last = 1 - distance / 2 - steps[-1]
    spread = isotonic_regression(heights[order] - steps, y_min=distance / 2, y_max=last) + steps
    return spread[np.argsort(order)]


def _explain(figure: Figure) -> None:
    marks: dict[str, Any] = {"ls": "", "marker": "o"}
    styles: dict[str, dict[str, Any]] = {
        "image of a seen class": {"ms": 3.5, "mew": 0, "color": hue("faint")},
        "image of an unseen class": {"ms": 3.5, "mew": 0, "color": hue("class-4")},
        "descriptor of a seen class": {"marker": "P", "ms": 5.5, "color": hue("muted")},
        "descriptor of an unseen class": {"ms": 6.5, "color": hue("class-4"), "mec": hue("ink")},
    }
    handles = [Line2D([], [], label=label, **marks | style) for label, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, handletextpad=0.3)


def _colour(position: int) -> str:
    return hue(CLASS_COLOURS[position % len(CLASS_COLOURS)])
