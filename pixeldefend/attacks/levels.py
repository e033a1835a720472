"""From what an attack finds to images: integers, within eps levels of the original and within 0..255."""

import torch
from torch import Tensor

from ..checks import check_choice, check_eps, check_images
from ..scaling import TOP, to_unit
from ._common import step_within

ROUNDINGS = ("nearest", "outward")
ROUNDING_ERROR = 1e-3  # levels: float32 pixels of [0, 1] are more exact than that


def to_levels(found: Tensor, images: Tensor, *, eps: int, rounding: str = "outward") -> Tensor:
    """What a search found, as integer images within eps of the originals: the second stage of an attack.

    The paper (section 2.1) defines attacks on integers. Levels are rounded first and clipped then.

    Args:
        found: float32 or float64 (N, C, H, W) in [0, 1], as from `deepfool_crossing` and `carlini_wagner_search`.
        images: uint8 (N, C, H, W), the originals, on the same device.
        eps: colour levels, an integer in 0..255; 0 returns the originals.
        rounding: "outward", away from the original image, or "nearest".

    Returns uint8 (N, C, H, W). Raises ``TypeError`` or ``ValueError`` for bad input.
    """
    _check_found(found, images)
    check_eps(eps)
    check_choice(rounding, ROUNDINGS, name="rounding")
    return rounded_within(found, images, eps, rounding)


def clipped(found: Tensor, images: Tensor, *, eps: int) -> Tensor:
    """What a search found, clipped to eps levels around the originals but not rounded: what the authors evaluate.

    Args:
        found: float32 or float64 (N, C, H, W) in [0, 1].
        images: uint8 (N, C, H, W), the originals, on the same device.
        eps: colour levels, an integer in 0..255.

    Returns float32 (N, C, H, W) in [0, 1]; a pixel that is within eps stays exactly what it was. Raises ``TypeError`` or
    ``ValueError`` for bad input.
    """
    _check_found(found, images)
    check_eps(eps)
    clean = to_unit(images)
    return torch.minimum(torch.maximum(found.detach().float(), clean - eps / TOP), clean + eps / TOP)


def rounded_within(pixels: Tensor, clean: Tensor, eps: int, rounding: str = "nearest") -> Tensor:
    """`to_levels` without its checks."""
    change = pixels.detach() * TOP - clean
    if rounding == "outward":
        change = (change.abs() - ROUNDING_ERROR).ceil().clamp(min=0) * change.sign()
    return step_within(clean, clean, change.round().to(torch.int16), eps)


def _check_found(found: Tensor, images: Tensor) -> None:
    check_images(images)
    if not isinstance(found, Tensor) or found.dtype not in (torch.float32, torch.float64):
        given = found.dtype if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"found must be a float32 or float64 tensor with values in [0, 1], not {given}")
    if found.shape != images.shape:
        raise ValueError(f"found must have the images' shape {tuple(images.shape)}, not {tuple(found.shape)}")
    if found.device != images.device:
        raise ValueError(f"found is on {found.device}, the images on {images.device}: move them to one device")
    if not ((found >= 0) & (found <= 1)).all():  # also false for NaN
        raise ValueError(f"found must lie in [0, 1], has {float(found.min()):.4g}..{float(found.max()):.4g}")
