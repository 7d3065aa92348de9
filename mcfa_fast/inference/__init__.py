"""Classification with a trained model."""

from mcfa_fast.inference.bulk import MeanEncoder, encode_means, latent_chunks
from mcfa_fast.inference.choices import Rejection
from mcfa_fast.inference.classifier import UNKNOWN, MCFAClassifier
from mcfa_fast.inference.heads import METHODS, ClassifierHeads
from mcfa_fast.inference.latent_index import LatentIndex
from mcfa_fast.inference.latents import LatentBank, class_latents, encode_images, image_latents
from mcfa_fast.inference.softmax import SoftmaxClassifier
from mcfa_fast.inference.validation import Validation, validate

__all__ = [
    "METHODS",
    "UNKNOWN",
    "ClassifierHeads",
    "LatentBank",
    "LatentIndex",
    "MCFAClassifier",
    "MeanEncoder",
    "Rejection",
    "SoftmaxClassifier",
    "Validation",
    "class_latents",
    "encode_images",
    "encode_means",
    "image_latents",
    "latent_chunks",
    "validate",
]
