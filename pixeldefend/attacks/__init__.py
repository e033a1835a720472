"""The attacks of the paper's section 2.1: pure functions from uint8 images to uint8 images of the same shape."""

from .bim import bim, bim_iterations
from .carlini_wagner import carlini_wagner
from .deepfool import deepfool
from .fgsm import fgsm
from .random import rand

ATTACKS = {"rand": rand, "fgsm": fgsm, "bim": bim, "deepfool": deepfool, "carlini_wagner": carlini_wagner}

__all__ = ["ATTACKS", "bim", "bim_iterations", "carlini_wagner", "deepfool", "fgsm", "rand"]
