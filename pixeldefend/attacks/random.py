"""RAND: random perturbation (the paper, section 2.1), its weakest attack and baseline."""

import torch
from torch import Tensor, nn

from ..checks import check_count, check_eps, check_generator, check_images, check_labels
from ._common import step_within


def rand(
    net: nn.Module | None,
    images: Tensor,
    labels: Tensor,
    *,
    eps: int,
    generator: torch.Generator,
    batch_size: int = 500,
    progress: bool = False,
) -> Tensor:
    """``X + U(-eps, eps)``: an integer drawn uniformly from [-eps, eps] for each sub-pixel, the sum clipped to 0..255.

    The noise of all images is one draw from ``generator`` and so does not depend on ``batch_size``, which, like
    ``net``, ``labels`` and ``progress``, is there because every attack takes it.

    Args:
        net: not used; may be ``None``.
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        eps: colour levels, an integer in 0..255; the paper rounds its eps down to one.
        generator: on any device; the noise is drawn there. The authors use numpy's global generator, unseeded.

    Returns the perturbed images, uint8 (N, C, H, W). Raises ``TypeError`` or ``ValueError`` for bad input.
    """
    check_images(images)
    check_labels(labels, images)
    check_eps(eps)
    check_generator(generator)
    check_count(batch_size, name="batch_size")
    where = {"generator": generator, "device": generator.device}
    noise = torch.randint(-eps, eps + 1, images.shape, dtype=torch.int16, **where)
    return step_within(images, images, noise.to(images.device), eps)
