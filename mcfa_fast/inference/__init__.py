"""Classification with a trained model."""

from mcfa_fast.inference.classifier import MCFAClassifier
from mcfa_fast.inference.heads import METHODS, ClassifierHeads
from mcfa_fast.inference.latent_index import LatentIndex
from mcfa_fast.inference.latents import LatentBank, class_latents, encode_images, image_latents
from mcfa_fast.inference.softmax import SoftmaxClassifier
from mcfa_fast.inference.validation import Validation, validate

__all__ = [
    "METHODS",
    "ClassifierHeads",
    "LatentBank",
    "LatentIndex",
    "MCFAClassifier",
    "SoftmaxClassifier",
    "Validation",
    "class_latents",
    "encode_images",
    "image_latents",
    "validate",
]
