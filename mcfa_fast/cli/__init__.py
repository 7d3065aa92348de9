"""The command ``mcfa-fast``: train, evaluate and use zero-shot classifiers from the shell."""

from mcfa_fast._extras import require

require("cli", __name__)

from mcfa_fast.cli.app import app

__all__ = ["app"]
