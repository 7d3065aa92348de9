"""Errors of the data package."""

from __future__ import annotations


class DatasetError(ValueError):
    """A dataset's content is unusable; the message names the file or field and what is wrong."""


class MissingFileError(DatasetError, FileNotFoundError):
    """A file or folder that a dataset needs does not exist."""
