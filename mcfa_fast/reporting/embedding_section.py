"""The embedding map of a run, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from mcfa_fast import data as datasets
from mcfa_fast.classifiers.zero_shot import ZeroShotClassifier
from mcfa_fast.reporting.embedding_map import draw_map, embed_pca, embed_tsne, sample_embeddings
from mcfa_fast.reporting.run_files import RunFiles
from mcfa_fast.reporting.svg import drawn
from mcfa_fast.systems.base import Embeds

__all__ = ["EmbeddingSection", "embedding_section"]


@dataclass(frozen=True)
class EmbeddingSection:
    """The maps, or why there are none.

    Attributes:
        missing: a sentence that says why there is no map; empty if there is one.
        maps: the map by PCA and the one by t-SNE.
        images: how many images are shown.
        training: whether the images of seen classes are training images.
        variance: share of the variance in the PCA map, in 0..1.
    """

    missing: str = ""
    maps: tuple[Markup, ...] = ()
    images: int = 0
    training: bool = False
    variance: float = 0.0


def embedding_section(
    run: RunFiles, classifier: ZeroShotClassifier | None, key: str, data: str | None
) -> EmbeddingSection:
    """Maps the embeddings of the run's images and descriptors.

    Args:
        run: says which dataset and split to take.
        classifier: of the run, if it is there.
        key: prefix of identifiers on the page.
        data: where the dataset lies now; None takes what the run says.

    Raises:
        ValueError, OSError: when `data` is given but cannot be read or is not the run's. Without
            it, this is a reason to leave the map out.
    """
    if classifier is None:
        return EmbeddingSection(missing="The run folder has no classifier.pt.")
    if not isinstance(classifier.system_, Embeds):
        return EmbeddingSection(
            missing=f"The system {run.config.system} scores classes without embedding images and "
            "classes in one space."
        )
    if data is None and run.source is None:
        return EmbeddingSection(
            missing="The run folder does not say which data it was trained on (no data.json); "
            "name it with --data."
        )
    source = run.source or {"features": None, "semantics": None}
    try:
        dataset = datasets.load(
            data or str(source["data"]), features=source["features"], semantics=source["semantics"]
        )
        sample = sample_embeddings(classifier, dataset, run.first.split)
    except (ValueError, OSError) as error:
        if data is not None:
            raise
        return EmbeddingSection(
            missing=f"The run's data could not be read ({error}). If it has moved, name its place "
            "with --data."
        )
    pca, variance = embed_pca(sample)
    tsne = embed_tsne(sample)
    described = (
        f"of the embeddings of {len(sample.images)} images and {len(sample.classes)} class "
        f"descriptors, {int(sample.unseen.sum())} of them of unseen classes, which are named"
    )
    return EmbeddingSection(
        maps=tuple(
            drawn(f"{key}-{name.lower()}", f"{name} map {described}", draw_map, sample, at, title)
            for name, at, title in (
                ("PCA", pca, f"PCA ({100 * variance:.0f} % of the variance)"),
                ("t-SNE", tsne, "t-SNE"),
            )
        ),
        images=len(sample.images),
        training=sample.training,
        variance=variance,
    )
