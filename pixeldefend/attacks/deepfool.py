"""DeepFool (Moosavi-Dezfooli et al. 2016; the paper, section 2.1) in the L-infinity form that the authors ran."""

import torch
from torch import Tensor, nn

from ..checks import CLASSES, check_choice, check_count, check_eps
from ..classifiers.inference import checked_logits
from ..scaling import to_unit
from ._common import check_input, gradient_of, search_in_batches
from .levels import ROUNDINGS, to_levels

ITERATIONS, OVERSHOOT = 50, 0.02  # the authors'
SHORTEST = 1e-4  # step on the scale of [0, 1]: 0.0255 levels


def deepfool(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: int,
    label_source: str = "predicted",
    max_iterations: int = ITERATIONS,
    overshoot: float = OVERSHOOT,
    rounding: str = "outward",
    batch_size: int = 100,
    progress: bool = False,
) -> Tensor:
    """`deepfool_crossing`, then `to_levels`: rounded and then clipped to eps levels around the original and to 0..255.

    The authors' result stays a float, where the paper (section 2.1) defines attacks on integers. Every pixel of a minimal
    perturbation of 2.3 levels rounds to 2, short of the boundary, so that rounding to the nearest level is in itself a
    defence. By default levels are rounded away from the original, to 3.

    Args:
        net: in eval mode, from float32 (N, C, H, W) in [0, 1] to logits (N, 10); its state and gradients do not change.
        images: uint8 (N, C, H, W).
        labels: int64 (N,), the true classes; not used with ``label_source="predicted"``.
        eps: colour levels, an integer in 0..255; 0 returns a copy.
        label_source: "predicted" or "true".
        max_iterations: at least 1.
        overshoot: a fraction, 0 or more.
        rounding: "outward", away from the original image, or "nearest".

    Returns the adversarial images, uint8 (N, C, H, W), on the images' device. Raises ``TypeError`` or ``ValueError``
    for bad input, a network in training mode, and logits that are not (N, 10), not finite or not differentiable.
    """
    check_input(net, images, labels, label_source=label_source, batch_size=batch_size)
    check_eps(eps)
    check_choice(rounding, ROUNDINGS, name="rounding")
    _check_options(max_iterations, overshoot)
    if eps == 0:
        return images.clone()
    found = deepfool_crossing(
        net, images, labels,
        label_source=label_source, max_iterations=max_iterations, overshoot=overshoot, batch_size=batch_size,
        progress=progress,
    )
    return to_levels(found, images, eps=eps, rounding=rounding)


def deepfool_crossing(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    label_source: str = "predicted",
    max_iterations: int = ITERATIONS,
    overshoot: float = OVERSHOOT,
    batch_size: int = 100,
    progress: bool = False,
) -> Tensor:
    """Step to the nearest boundary of the linearised network, again and again, until the prediction changes.

    With w_k the gradient of the difference f_k between the logits of class k and of the label, the boundary to class k is
    ``|f_k| / |w_k|_1`` away in L-infinity. Each iteration adds the step to the nearest one, that distance times
    ``sign(w_k)``; the image is the original plus ``1 + overshoot`` times the sum of the steps. An image that has left its
    label stops moving; one that is misclassified to begin with stays as it is. Per iteration and image that still moves:
    one gradient for each of the ten classes.

    The paper gives no norm and no constants. Norm, label source, 50 iterations and overshoot 0.02 are those of the
    authors' code. One thing is not: their iterates leave 0..255, and at the end the whole image is rescaled affinely into
    it. That changes every pixel for reasons that have nothing to do with the attack: an artefact. Here each iterate is
    clipped to 0..255, the next step makes up for what was lost, and the sum of the steps counts what was taken. So that
    this does not go on in ever smaller steps, until the float noise of the logits stops it short of the boundary, no step is
    shorter than 1e-4, which Foolbox adds to every step.

    Takes the arguments of `deepfool`, without eps and rounding, on which this does not depend. Returns the images before
    either, float32 (N, C, H, W) in [0, 1], on the images' device. Raises what `deepfool` raises.
    """
    _check_options(max_iterations, overshoot)

    def all_steps(clean: Tensor, chosen: Tensor) -> Tensor:
        return nearest_crossing(net, to_unit(clean), chosen, max_iterations, overshoot)

    return search_in_batches(
        net, images, labels, all_steps,
        label_source=label_source, batch_size=batch_size, progress=progress, name="DeepFool",
    )


def _check_options(max_iterations: int, overshoot: float) -> None:
    check_count(max_iterations, name="max_iterations")
    if isinstance(overshoot, bool) or not isinstance(overshoot, int | float):
        raise TypeError(f"overshoot must be a number, not {overshoot!r}")
    if not 0 <= overshoot < float("inf"):
        raise ValueError(f"overshoot must be finite and not negative, not {overshoot}")


def nearest_crossing(
    net: nn.Module, clean: Tensor, labels: Tensor, max_iterations: int = ITERATIONS, overshoot: float = OVERSHOOT
) -> Tensor:
    """Pixels in [0, 1] after the iteration; an image that has left its label stops moving."""
    found, total = clean.clone(), torch.zeros_like(clean)
    moving = torch.arange(len(clean), device=clean.device)
    for _ in range(max_iterations):
        with torch.no_grad():  # ten gradients cost twenty times this
            left = checked_logits(net, found[moving]).argmax(dim=1) != labels[moving]
        moving = moving[~left]
        if not len(moving):
            break
        total[moving] += _step(net, found[moving], labels[moving])
        found[moving] = (clean[moving] + (1 + overshoot) * total[moving]).clamp(0, 1)
        total[moving] = (found[moving] - clean[moving]) / (1 + overshoot)  # no debts beyond black and white
    return found


def _step(net: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """The smallest L-infinity step that takes each image to the nearest of its linearised boundaries."""
    pixels = pixels.requires_grad_()
    logits = checked_logits(net, pixels)
    gradients = torch.stack([gradient_of(logits[:, k].sum(), pixels, retain_graph=True) for k in range(CLASSES)], dim=1)
    logits = logits.detach()
    rows = torch.arange(len(pixels), device=pixels.device)
    gaps = (logits - logits[rows, labels, None]).abs()
    slopes = gradients - gradients[rows, labels, None]
    norms = slopes.flatten(2).abs().sum(2)
    distances = gaps / norms
    distances[norms == 0] = torch.inf  # a class that no step brings nearer, such as the label itself
    distance, nearest = distances.min(dim=1)
    distance = torch.where(distance.isfinite(), distance.clamp(min=SHORTEST), 0.0)
    return distance.view(-1, 1, 1, 1) * slopes[rows, nearest].sign()
