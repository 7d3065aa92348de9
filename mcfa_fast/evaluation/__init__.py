"""How good a classifier is."""

from mcfa_fast._extras import require

require("zsl", __name__)

from mcfa_fast.evaluation.curve import (
    OperatingPoint,
    SeenUnseenCurve,
    best_calibration,
    seen_unseen_curve,
)
from mcfa_fast.evaluation.evaluate import Evaluable, Evaluation, GeneralizedResult, evaluate
from mcfa_fast.evaluation.metrics import (
    ClassResult,
    class_table,
    confusion,
    harmonic_mean,
    mean_class_accuracy,
)
from mcfa_fast.evaluation.warnings import ResultWarning, warnings_of

__all__ = [
    "ClassResult",
    "Evaluable",
    "Evaluation",
    "GeneralizedResult",
    "OperatingPoint",
    "ResultWarning",
    "SeenUnseenCurve",
    "best_calibration",
    "class_table",
    "confusion",
    "evaluate",
    "harmonic_mean",
    "mean_class_accuracy",
    "seen_unseen_curve",
    "warnings_of",
]
