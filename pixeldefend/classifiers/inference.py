"""Classifying uint8 images with any network from [0, 1] floats to logits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..checks import CLASSES, check_count, check_eval_mode, check_images, check_labels, check_pixels
from ..scaling import to_unit


def predict(model: nn.Module, images: Tensor, *, batch_size: int = 500) -> Tensor:
    """The class of each image: int64 (N,) on the images' device, from uint8 images (N, C, H, W).

    ``model`` is in eval mode and maps float32 (N, C, H, W) in [0, 1] to logits (N, 10), on its own device.

    Raises ``TypeError`` or ``ValueError`` for other images, a model in training mode, a batch size below 1, and a model
    whose output is not (N, 10) finite logits.
    """
    check_eval_mode(model)
    check_images(images)
    check_count(batch_size, name="batch_size")
    return _classes(model, images, to_unit, batch_size)


def predict_pixels(model: nn.Module, pixels: Tensor, *, batch_size: int = 500) -> Tensor:
    """`predict` for images that are no colour levels: int64 (N,) from floats (N, C, H, W) in [0, 1].

    Raises what `predict` raises, for anything but such floats.
    """
    check_eval_mode(model)
    check_pixels(pixels)
    if not ((pixels >= 0) & (pixels <= 1)).all():  # also false for NaN
        raise ValueError(f"pixels must lie in [0, 1], found {float(pixels.min()):.4g}..{float(pixels.max()):.4g}")
    check_count(batch_size, name="batch_size")
    return _classes(model, pixels, Tensor.float, batch_size)


@torch.no_grad()
def _classes(model: nn.Module, images: Tensor, to_pixels: Callable[[Tensor], Tensor], batch_size: int) -> Tensor:
    device = device_of(model, images)
    labels = torch.empty(len(images), dtype=torch.int64, device=images.device)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        labels[part] = checked_logits(model, to_pixels(images[part].to(device))).argmax(dim=1)
    return labels


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 500) -> float:
    """The fraction, 0..1, of the images (uint8, (N, C, H, W)) whose predicted class is their label (int64, (N,)).

    Raises what `predict` raises, the same for labels that are not one class in 0..9 per image, and ``ValueError`` for
    no images at all.
    """
    check_images(images)
    check_labels(labels, images)
    if not len(images):
        raise ValueError("accuracy needs at least one image")
    return (predict(model, images, batch_size=batch_size) == labels).double().mean().item()


def checked_logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """``model(pixels)`` as float32, refused unless it is (N, 10) and finite."""
    logits = model(pixels)
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        given = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"the model must return a floating-point tensor of logits, not {given}")
    if logits.shape != (len(pixels), CLASSES):
        raise ValueError(f"the model must return logits of shape {(len(pixels), CLASSES)}, not {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise ValueError("the model returned logits that are NaN or infinite")
    return logits.float()


def device_of(model: nn.Module, images: Tensor) -> torch.device:
    """Where ``model`` computes; a model without parameters or buffers computes where the images are."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return images.device
