"""From media to what systems work on: class descriptors from sentences.

- :class:`~mcfa_fast.encoders.sentences.SentenceEncoder` describes one class, with a
  sentence-transformers model (extra ``text``).
- :func:`~mcfa_fast.encoders.describe.describe_folder` writes the descriptors of a whole dataset
  folder, with any encoder of that form.
"""

from mcfa_fast.encoders.describe import describe_folder
from mcfa_fast.encoders.sentences import DEFAULT_ENCODER, SentenceEncoder

__all__ = ["DEFAULT_ENCODER", "SentenceEncoder", "describe_folder"]
