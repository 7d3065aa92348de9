"""Choices made inside the seen classes: settings, calibrations, rejection.

Nothing here knows a system or a head: what is chosen from is handed in as functions.
"""

from mcfa_fast._extras import require

require("zsl", __name__)

from mcfa_fast.selection.calibration import HeldOutScores, calibrate
from mcfa_fast.selection.choose import Choice, choose
from mcfa_fast.selection.config import SelectionConfig
from mcfa_fast.selection.folds import ClassFold, class_folds, hold_out, selection_folds
from mcfa_fast.selection.rejection import Rejection
from mcfa_fast.selection.result import Selection, TransductionChoice

__all__ = [
    "Choice",
    "ClassFold",
    "HeldOutScores",
    "Rejection",
    "Selection",
    "SelectionConfig",
    "TransductionChoice",
    "calibrate",
    "choose",
    "class_folds",
    "hold_out",
    "selection_folds",
]
