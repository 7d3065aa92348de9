"""Zero-shot classifiers over every system, in the manner of scikit-learn."""

from mcfa_fast._extras import require

require("zsl", __name__)

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.heads import HEADS
from mcfa_fast.classifiers.prediction import UNKNOWN
from mcfa_fast.classifiers.zero_shot import MCFAClassifier, ZeroShotClassifier

__all__ = ["HEADS", "UNKNOWN", "MCFAClassifier", "RunConfig", "ZeroShotClassifier"]
