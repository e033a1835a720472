"""Input checks that every public function makes at its door.

Images are ``torch.uint8`` of shape (N, C, H, W) with levels 0..255, labels ``torch.int64`` of shape (N,), and ``eps``
is an integer number of colour levels (the paper, section 2.1). Each check returns nothing and raises a ``TypeError``
(wrong kind of thing) or a ``ValueError`` (right kind, wrong value) that says what was given and what is allowed.
"""

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = 10  # both data sets of the paper have ten
LEVELS = 256


def check_images(images: Tensor, *, channels: int | None = None, name: str = "images") -> None:
    """Refuse anything but a uint8 tensor of shape (N, C, H, W); ``channels`` fixes C where a model needs it."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a torch.uint8 tensor, not {type(images).__name__}")
    if images.dtype != torch.uint8:
        raise TypeError(f"{name} must be torch.uint8 with levels 0..255, not {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W), not {tuple(images.shape)}")
    if channels is not None and images.shape[1] != channels:
        raise ValueError(f"{name} must have {channels} channel(s), not {images.shape[1]}")


def check_pixels(pixels: Tensor) -> None:
    """Refuse anything but a floating-point tensor of shape (N, C, H, W); the values are the caller's to check."""
    if not isinstance(pixels, Tensor) or not pixels.is_floating_point():
        given = pixels.dtype if isinstance(pixels, Tensor) else type(pixels).__name__
        raise TypeError(f"pixels must be a floating-point tensor with values in [0, 1], not {given}")
    if pixels.ndim != 4:
        raise ValueError(f"pixels must have shape (N, C, H, W), not {tuple(pixels.shape)}")


def check_purified(purified: Tensor, images: Tensor) -> None:
    """Refuse what a purifier made of uint8 ``images`` unless it is uint8 and of their shape."""
    check_images(purified, name="purify's result")
    if purified.shape != images.shape:
        raise ValueError(f"purify must keep the shape {tuple(images.shape)}, not return {tuple(purified.shape)}")


def check_labels(labels: Tensor, images: Tensor, *, classes: int = CLASSES) -> None:
    """Refuse anything but an int64 tensor with one label in 0..classes-1 for each image, on the images' device."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a torch.int64 tensor, not {type(labels).__name__}")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be torch.int64, not {labels.dtype}")
    if labels.shape != (len(images),):
        raise ValueError(f"labels must have shape ({len(images)},), one per image, not {tuple(labels.shape)}")
    if labels.device != images.device:
        raise ValueError(f"labels are on {labels.device}, the images on {images.device}: move them to one device")
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < classes):
        raise ValueError(f"labels must lie in 0..{classes - 1}, found {int(labels.min())}..{int(labels.max())}")


def check_eps(eps: int, *, name: str = "eps") -> None:
    """Refuse anything but an integer in 0..255: eps counts colour levels."""
    if not _is_integer(eps):
        raise TypeError(f"{name} must be an integer number of colour levels (0..255), not {eps!r}")
    if not 0 <= eps < LEVELS:
        raise ValueError(f"{name} must lie in 0..255 colour levels, not {eps}")


def check_eval_mode(model: nn.Module, *, name: str = "model") -> None:
    """Refuse a module of which any part is in training mode: dropout and batch statistics make answers random."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, not {type(model).__name__}")
    if any(part.training for part in model.modules()):
        raise ValueError(f"{name} is in training mode; call {name}.eval() first")


def check_generator(generator: torch.Generator) -> None:
    """Refuse anything but a ``torch.Generator``: randomness is always an explicit argument."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            "generator must be a torch.Generator, for example torch.Generator().manual_seed(0), "
            f"not {type(generator).__name__}"
        )


def check_choice(value: str, allowed, *, name: str) -> None:
    """Refuse a name that is not among ``allowed``."""
    if value not in allowed:
        raise ValueError(f"unknown {name} {value!r}; choose one of: {', '.join(sorted(allowed))}")


def check_count(value: int, *, name: str) -> None:
    """Refuse anything but a positive integer."""
    if not _is_integer(value):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def _is_integer(value: object) -> bool:
    """Python's integers, and those that numpy gives of itself; no bool, and nothing that would wrap around in the sums to
    come, as numpy's small and unsigned integers and tensors do."""
    return isinstance(value, int | np.int32 | np.int64) and not isinstance(value, bool)
