"""A sentence encoder small enough to be made in a test: one vector per word, averaged."""

from pathlib import Path

import numpy as np

WORDS = ("a", "loop", "line", "top", "bottom", "against")
VECTORS = np.random.default_rng(0).normal(size=(1 + len(WORDS), 26)).astype(np.float32)
VECTORS[WORDS.index("against") + 1] = -VECTORS[WORDS.index("loop") + 1]


def save_sentence_model(folder: Path, width: int) -> None:
    """Writes a sentence-transformers model whose vectors have `width` values, at most 26."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: index for index, word in enumerate(("[UNK]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    embedding = StaticEmbedding(tokenizer, embedding_weights=VECTORS[:, :width].copy())
    SentenceTransformer(modules=[embedding], device="cpu").save(str(folder))


def describe(sentences: list[str], width: int) -> np.ndarray:
    """The descriptor of these sentences of known words, by its definition, in float64."""
    total = np.zeros(width)
    for text in sentences:
        rows = [WORDS.index(word) + 1 for word in text.split()]
        vector = VECTORS[rows, :width].astype(np.float64).mean(axis=0)
        total += vector / np.sqrt((vector**2).sum())
    return total / np.sqrt((total**2).sum())
