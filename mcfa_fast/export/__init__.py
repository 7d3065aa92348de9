"""A trained classifier as one file that runs without this library's training code.

:func:`export_classifier` writes TorchScript, ``torch.export`` or ONNX; :func:`load_exported` reads
any of the three back.
"""

from mcfa_fast._extras import require

require("zsl", __name__)

from mcfa_fast.export.export import FORMATS, Format, export_classifier
from mcfa_fast.export.load import load_exported
from mcfa_fast.export.metadata import Metadata
from mcfa_fast.export.module import DeployedClassifier
from mcfa_fast.export.predictor import Predictor

__all__ = [
    "FORMATS",
    "DeployedClassifier",
    "Format",
    "Metadata",
    "Predictor",
    "export_classifier",
    "load_exported",
]
