"""Defences that change the image and leave the classifier as it is."""

from .purification import DefendedClassifier, PixelDefend
from .squeezing import squeeze

__all__ = ["DefendedClassifier", "PixelDefend", "squeeze"]
