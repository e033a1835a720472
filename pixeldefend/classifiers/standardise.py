"""The standardisation of each image, which every classifier does first."""

import math

from torch import Tensor


def standardise(pixels: Tensor) -> Tensor:
    """Shift and scale each image of ``pixels``, (N, C, H, W) in [0, 1], to mean 0 and standard deviation 1.

    Mean and standard deviation are taken over all pixels and channels of the image. As in the authors' code (the paper
    does not mention it), the standard deviation is floored at 1 / sqrt(3 H W) colour levels, with the 3 for grey images
    too, so in units of [0, 1] at 1 / (255 sqrt(3 H W)). A single level of difference at a single pixel already exceeds
    that: the floor is there for constant images, which become zero. Gradients flow through mean and deviation.
    """
    floor = 1 / (255 * math.sqrt(3 * pixels.shape[2] * pixels.shape[3]))
    centred = pixels - pixels.mean(dim=(1, 2, 3), keepdim=True)
    variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
    # the floor goes inside the root, whose derivative at zero is infinite
    return centred / variance.clamp(min=floor**2).sqrt()
