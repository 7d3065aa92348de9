"""The descriptors of a whole dataset folder, from sentences about its classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mcfa_fast.data.checks import describe_classes
from mcfa_fast.data.class_names import read_class_names
from mcfa_fast.data.errors import DatasetError
from mcfa_fast.data.files import read_json, read_npz, read_npz_names, require
from mcfa_fast.data.folder import COMPANIONS
from mcfa_fast.encoders.sentences import SentenceEncoder
from mcfa_fast.storage.atomic import write_atomically

__all__ = ["describe_folder"]


def describe_folder(
    folder: str | os.PathLike[str],
    sentences: str | os.PathLike[str],
    encoder: SentenceEncoder,
    *,
    name: str = "text",
    overwrite: bool = False,
) -> np.ndarray:
    """Write the descriptors of all classes of a dataset folder into its ``semantics.npz``.

    Other descriptors that are there stay. The file is the old or the new one, never half of it.

    Args:
        folder: has ``class_names.json``; other files of the dataset may come later.
        sentences: a JSON file, an object of class names and lists of sentences about each, see
            :class:`~mcfa_fast.encoders.sentences.SentenceEncoder`. Other classes in it are left
            aside.
        encoder: what turns sentences into descriptors, by its method ``describe``.
        name: name of the descriptors.
        overwrite: replace descriptors of that name.

    Returns:
        The descriptors [C, A], in the order of the class names.

    Raises:
        DatasetError: when a file is missing or damaged, or a class has no sentences.
        FileExistsError: when there are such descriptors and `overwrite` is False.
        ValueError: on a bad name, or sentences that cannot be encoded.
    """
    if not name or name == "file" or name.endswith(COMPANIONS):  # numpy keeps "file" for itself
        raise ValueError(
            f"name: expected one that is not 'file' and does not end in {COMPANIONS}, got {name!r}"
        )
    folder, sentences = Path(folder), Path(sentences)
    class_names = read_class_names(folder / "class_names.json")
    texts = _read_sentences(sentences, class_names)
    path = folder / "semantics.npz"
    stored = read_npz_names(path) if path.exists() else ()
    if name in stored and not overwrite:
        raise FileExistsError(f"{path}: has descriptors {name!r} already")
    # What stood beside the old descriptors does not describe the new ones.
    replaced = (name, *(name + suffix for suffix in COMPANIONS))
    arrays = {key: read_npz(path, key) for key in stored if key not in replaced}
    descriptors = np.stack([_describe(encoder, key, texts[key], sentences) for key in class_names])
    content: dict[str, Any] = {**arrays, name: descriptors}
    write_atomically(path, lambda file: np.savez(file, **content))
    return descriptors


def _read_sentences(path: Path, class_names: tuple[str, ...]) -> dict[str, list[str]]:
    texts = read_json(require(path, "the sentences about every class"))
    if not isinstance(texts, dict):
        raise DatasetError(f"{path}: expected an object of class names and lists of sentences")
    missing = [index for index, name in enumerate(class_names) if name not in texts]
    if missing:
        raise DatasetError(
            f"{path}: no sentences of class {describe_classes(missing, class_names)}"
        )
    return texts


def _describe(encoder: SentenceEncoder, name: str, texts: list[str], path: Path) -> np.ndarray:
    try:
        return encoder.describe(texts)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{path}: class {name!r}: {error}") from error
