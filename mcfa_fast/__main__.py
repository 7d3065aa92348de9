"""``python -m mcfa_fast``: the same as the command ``mcfa-fast``."""

from mcfa_fast.cli import app

app(prog_name="mcfa-fast")
