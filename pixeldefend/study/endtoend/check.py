"""Checks what is stored of the attack around the purification: the attacked images that are kept do what is said of them."""

import torch

from ...classifiers import predict
from ...defenses import PixelDefend
from ..conditions import EPS_DEFEND
from ..lab import Lab
from .attacks import unpacked


def kept_attacks(lab: Lab, results: dict, *, tolerance: float) -> tuple[list[bool], list[bool]]:
    """Which of the images that the results of `around_purification` keep of BPDA, at all eps, are not what they say.

    ``tolerance`` is in bits per dimension.

    Returns:
        Two lists over these images. The first is true where an image is further than eps from the test image, or where
        its bits per dimension, before purification, differ by more than ``tolerance``. The second, where the classifier
        behind purification sees another class: as BPDA stops with the first step that is enough, these images lie close to
        a boundary, and rounding may take some of them across.
    """
    kept = {eps: unpacked(images["bpda"]) for eps, images in results["gallery"].items()}
    every = torch.cat(list(kept.values()))
    purify = PixelDefend(lab.density, eps_defend=EPS_DEFEND[lab.data_set], precision=lab.precision)
    seen = predict(lab.classifier(), purify(every)).cpu().split([len(images) for images in kept.values()])
    bits = lab.density.bits_per_dim(every, precision=lab.precision).double().cpu().split([len(of) for of in kept.values()])
    wrong, other = [], []
    for (eps, images), classes, costs in zip(kept.items(), seen, bits, strict=True):
        count, said = len(images), results["attacks"][eps]["bpda"]
        moved = (images.int() - lab.test.images[:count].int()).abs().flatten(1).amax(1)
        as_said = (costs - torch.tensor(said["bits"][:count], dtype=torch.float64)).abs() <= tolerance
        wrong += ((moved > int(eps)) | ~as_said).tolist()
        other += (classes != torch.tensor(said["predictions"][:count])).tolist()
    return wrong, other
