"""The attacks of the paper's section 2.1: pure functions from uint8 images to uint8 images of the same shape.

What DeepFool and Carlini-Wagner (as published) look for does not depend on eps. Each is two stages, for which there are
functions of their own: the search in `SEARCHES`, whose result serves every eps, then `to_levels`. `clipped` instead of
`to_levels` tells what rounding to integers does to it.
"""

from .bim import bim, bim_iterations
from .bpda import bpda
from .carlini_wagner import carlini_wagner, carlini_wagner_search
from .deepfool import deepfool, deepfool_crossing
from .fgsm import fgsm
from .levels import clipped, to_levels
from .random import rand

ATTACKS = {"rand": rand, "fgsm": fgsm, "bim": bim, "deepfool": deepfool, "carlini_wagner": carlini_wagner}
SEARCHES = {"deepfool": deepfool_crossing, "carlini_wagner": carlini_wagner_search}

__all__ = [
    "ATTACKS",
    "SEARCHES",
    "bim",
    "bim_iterations",
    "bpda",
    "carlini_wagner",
    "carlini_wagner_search",
    "clipped",
    "deepfool",
    "deepfool_crossing",
    "fgsm",
    "rand",
    "to_levels",
]
