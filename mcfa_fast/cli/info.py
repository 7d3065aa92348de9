"""``mcfa-fast info``."""

from __future__ import annotations

from rich.table import Table

from mcfa_fast.cli.common import console
from mcfa_fast.environment import environment


def info() -> None:
    """Print versions, how the extension was built, CPU capability, FAISS and devices."""
    table = Table(title="mcfa_fast", show_header=False, title_justify="left")
    for name, value in environment().items():
        table.add_row(name, value)
    console.print(table)
