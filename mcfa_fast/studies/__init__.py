"""Studies of many runs: comparisons of methods under one protocol, and hyperparameter sweeps."""

from mcfa_fast.studies.comparison import Comparison, plan, resolve_splits
from mcfa_fast.studies.jobs import JobLog, JobResult, run_jobs
from mcfa_fast.studies.methods import METHODS, BaselineMethod, MCFAMethod, resolve_methods
from mcfa_fast.studies.report import comparison_tables, to_markdown
from mcfa_fast.studies.selection import Selection, select
from mcfa_fast.studies.space import Choice, Range
from mcfa_fast.studies.sweep import SweepProgress, SweepResult, sweep
from mcfa_fast.studies.table import rows_csv, rows_of

__all__ = [
    "METHODS",
    "BaselineMethod",
    "Choice",
    "Comparison",
    "JobLog",
    "JobResult",
    "MCFAMethod",
    "Range",
    "Selection",
    "SweepProgress",
    "SweepResult",
    "comparison_tables",
    "plan",
    "resolve_methods",
    "resolve_splits",
    "rows_csv",
    "rows_of",
    "run_jobs",
    "select",
    "sweep",
    "to_markdown",
]
