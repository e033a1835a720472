"""Defences that change the image and leave the classifier as it is."""

from .lbfgs import lbfgs_purify
from .purification import DefendedClassifier, PixelDefend
from .squeezing import MedianFiltered, squeeze
from .unrolled import GradientFlow, UnrolledPurification, gradient_flow

__all__ = [
    "DefendedClassifier",
    "GradientFlow",
    "MedianFiltered",
    "PixelDefend",
    "UnrolledPurification",
    "gradient_flow",
    "lbfgs_purify",
    "squeeze",
]
