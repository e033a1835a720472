"""The attacks of the paper's section 2.1: pure functions from uint8 images to uint8 images of the same shape."""

from .bim import bim, bim_iterations
from .fgsm import fgsm
from .random import rand

ATTACKS = {"rand": rand, "fgsm": fgsm, "bim": bim}

__all__ = ["ATTACKS", "bim", "bim_iterations", "fgsm", "rand"]
