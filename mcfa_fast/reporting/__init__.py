"""A run as one self-contained HTML page (``pip install mcfa_fast[report]``)."""

from mcfa_fast._extras import require

require("report", __name__)

from mcfa_fast.reporting.page import render_report, write_report
from mcfa_fast.reporting.run_files import RunFiles, read_run

__all__ = ["RunFiles", "read_run", "render_report", "write_report"]
