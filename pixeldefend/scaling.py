"""Between colour levels (uint8, 0..255) and the unit interval (float32): the one place that divides images by 255."""

import torch
from torch import Tensor

from .checks import check_images, check_pixels

TOP = 255  # the highest level


def to_unit(images: Tensor) -> Tensor:
    """Scale uint8 images (N, C, H, W) to float32 in [0, 1], the input of every classifier.

    Raises ``TypeError`` or ``ValueError`` for anything but uint8 images of that shape.
    """
    check_images(images)
    return images.float() / TOP


def from_unit(pixels: Tensor) -> Tensor:
    """Turn floats in [0, 1], (N, C, H, W), into uint8 levels: the nearest level, never the one below.

    The authors' code truncates, which lowers some values by one level; rounding makes ``from_unit(to_unit(x)) == x``.

    Raises ``TypeError`` for anything but a floating-point tensor; ``ValueError`` for NaN and for values that do not
    round to a level in 0..255.
    """
    check_pixels(pixels)
    levels = (pixels.float() * TOP).round()
    if not ((levels >= 0) & (levels <= TOP)).all():  # also false for NaN
        raise ValueError(f"pixels must lie in [0, 1], found {float(pixels.min()):.4g}..{float(pixels.max()):.4g}")
    return levels.to(torch.uint8)
