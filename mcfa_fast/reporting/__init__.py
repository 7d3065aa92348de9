"""A run as one self-contained HTML page (``pip install mcfa_fast[report]``)."""

try:
    from mcfa_fast.reporting.page import render_report, write_report
    from mcfa_fast.reporting.run_files import RunFiles, read_run
except ModuleNotFoundError as error:
    missing = str(error.name).partition(".")[0]
    if missing not in ("jinja2", "markupsafe", "matplotlib"):
        raise
    raise ImportError(
        f"mcfa_fast.reporting: {missing} is not installed; pip install 'mcfa_fast[report]'"
    ) from error

__all__ = ["RunFiles", "read_run", "render_report", "write_report"]
