"""Class descriptors from sentences, with a sentence-transformers encoder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcfa_fast._extras import require

__all__ = ["DEFAULT_ENCODER", "SentenceEncoder"]

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""Of the `text` descriptors that many zero-shot data sets come with; 384 values."""

_HUB_SECONDS = 10.0


class SentenceEncoder:
    r"""Describes a class by the normalised mean of its sentences' unit vectors.

    .. math:: d = m / \lVert m \rVert, \quad m = \frac{1}{n} \sum_i e(t_i) / \lVert e(t_i) \rVert

    The encoder has to be the one that made the descriptors a classifier was trained on: vectors of
    another encoder mean something else, even where their length is the same.

    Args:
        name: folder of a sentence-transformers model, read without any network access, or the name
            of one on the Hugging Face hub, of which a local copy is taken where the hub cannot be
            reached. Code that comes with a model is never run.

    Raises:
        MissingExtraError: without ``pip install 'mcfa_fast[text]'``.
        ImportError: where sentence-transformers is installed but does not import, with the cause.
        ValueError: when there is no such model or it cannot be read.

    Example:
        >>> encoder = SentenceEncoder("all-MiniLM-L6-v2")  # doctest: +SKIP
        >>> encoder.describe(["A runway with parked aircraft.", "Terminals by an apron."]).shape
        ... # doctest: +SKIP
        (384,)
    """

    def __init__(self, name: str | os.PathLike[str] = DEFAULT_ENCODER) -> None:
        self.name = os.fspath(name)
        load = _loader()
        folder = Path(self.name)
        if not folder.is_dir() and (folder.is_absolute() or self.name.startswith(".")):
            raise ValueError(f"{self.name}: there is no such folder of a sentence encoder")
        if folder.is_dir() and not (folder / "modules.json").is_file():
            # Else a missing pooling layer would be made up.
            raise ValueError(
                f"{self.name}: expected a sentence-transformers model: no modules.json"
            )
        local = folder.is_dir() or not _on_hub(self.name)
        try:
            self._model = load(
                self.name, device="cpu", local_files_only=local, trust_remote_code=False
            )
        except Exception as error:  # damaged and absent models raise many kinds
            raise ValueError(
                f"{self.name}: cannot be loaded as a sentence encoder: {_first_line(error)}"
            ) from error

    def describe(self, sentences: Sequence[str]) -> np.ndarray:
        """The class descriptor [A], float32 with unit norm.

        Args:
            sentences: one or more non-empty sentences about the class.

        Raises:
            TypeError, ValueError: on anything else, or sentences that cancel out.
        """
        if isinstance(sentences, str) or not all(isinstance(text, str) for text in sentences):
            raise TypeError("sentences: expected a list of strings")
        if not sentences or not all(text.strip() for text in sentences):
            raise ValueError("sentences: expected one or more non-empty strings")
        vectors = self._model.encode(
            list(sentences), normalize_embeddings=True, show_progress_bar=False
        )
        mean = np.asarray(vectors, dtype=np.float32).mean(axis=0)
        norm = np.linalg.norm(mean)
        if not norm > 1e-6:
            raise ValueError(f"sentences: {self.name} gives vectors for them that cancel out")
        return mean / norm


def _loader() -> Callable[..., Any]:
    """The class of sentence-transformers models."""
    require("text", "a sentence encoder")
    try:
        from sentence_transformers import SentenceTransformer
    except Exception as error:  # what it needs in its turn may be broken in many ways
        raise ImportError(
            "a sentence encoder: sentence_transformers is installed but does not import: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error
    return SentenceTransformer


def _on_hub(name: str) -> bool:
    """Whether the hub has a model, asked once: the model's own loader asks for a minute.

    Raises:
        ValueError: when it says no, or nothing, and there is no local copy either.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    # As sentence-transformers reads a name without an owner.
    name = name if "/" in name else f"sentence-transformers/{name}"
    try:
        HfApi().model_info(name, timeout=_HUB_SECONDS)
        return True
    except Exception as error:  # of the network, the hub's answer or the name, of many kinds
        try:
            copied = isinstance(try_to_load_from_cache(name, "modules.json"), str)
        except ValueError:  # no name that the hub could have
            copied = False
        if copied:
            return False
        raise ValueError(
            f"{name}: neither a folder nor copied from the Hugging Face hub before, and the hub "
            f"does not give it: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return line[:300]
