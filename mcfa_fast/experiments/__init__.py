"""Whole experiments: one run, comparisons of systems, and sweeps over options."""

from mcfa_fast._extras import require

require("zsl", __name__)

from mcfa_fast.experiments.compare import Comparison, plan, resolve_splits
from mcfa_fast.experiments.contestants import Contestant, resolve_contestants
from mcfa_fast.experiments.jobs import JobLog, JobResult, run_jobs
from mcfa_fast.experiments.report import comparison_tables, to_markdown
from mcfa_fast.experiments.run import OPTIMISTIC, evaluate_heads, run
from mcfa_fast.experiments.space import Choice, Range
from mcfa_fast.experiments.sweep import SweepProgress, SweepResult, sweep
from mcfa_fast.experiments.table import Row, rows_csv, rows_of

__all__ = [
    "OPTIMISTIC",
    "Choice",
    "Comparison",
    "Contestant",
    "JobLog",
    "JobResult",
    "Range",
    "Row",
    "SweepProgress",
    "SweepResult",
    "comparison_tables",
    "evaluate_heads",
    "plan",
    "resolve_contestants",
    "resolve_splits",
    "rows_csv",
    "rows_of",
    "run",
    "run_jobs",
    "sweep",
    "to_markdown",
]
