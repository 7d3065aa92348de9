"""The latent map of a run, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from mcfa_fast import data as datasets
from mcfa_fast.classifiers.classifier_old import MCFAClassifier
from mcfa_fast.reporting.latent_map import draw_map, embed_pca, embed_tsne, sample_latents
from mcfa_fast.reporting.run_files import RunFiles
from mcfa_fast.reporting.svg import drawn

__all__ = ["LatentSection", "latent_section"]


@dataclass(frozen=True)
class LatentSection:
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


def latent_section(
    run: RunFiles, classifier: MCFAClassifier | None, key: str, data: str | None
) -> LatentSection:
    """Maps the latents of the run's images and descriptors.

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
        return LatentSection(missing="The run folder has no classifier.pt.")
    if data is None and run.source is None:
        return LatentSection(
            missing="The run folder does not say which data it was trained on (no data.json); "
            "name it with --data."
        )
    source = run.source or {"features": None, "semantics": None}
    try:
        dataset = datasets.load(
            data or source["data"], features=source["features"], semantics=source["semantics"]
        )
        sample = sample_latents(classifier, dataset, run.first.split)
    except (ValueError, OSError) as error:
        if data is not None:
            raise
        return LatentSection(
            missing=f"The run's data could not be read ({error}). If it has moved, name its place "
            "with --data."
        )
    pca, variance = embed_pca(sample)
    tsne = embed_tsne(sample)
    described = (
        f"of the latents of {len(sample.images)} images and {len(sample.classes)} class "
        f"descriptors, {int(sample.unseen.sum())} of them of unseen classes, which are named"
    )
    return LatentSection(
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
