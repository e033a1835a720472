"""What every attack does: check its input, work in batches, find the labels to leave and the gradient's sign."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..checks import check_choice, check_count, check_eps, check_eval_mode, check_images, check_labels
from ..classifiers.inference import checked_logits, device_of
from ..scaling import to_unit

LABEL_SOURCES = ("true", "predicted")
BatchAttack = Callable[[Tensor, Tensor], Tensor]


def check_input(net: nn.Module, images: Tensor, labels: Tensor, *, label_source: str, batch_size: int) -> None:
    """Refuse, before any work, what no attack that asks the network takes."""
    check_eval_mode(net, name="net")
    check_images(images)
    check_labels(labels, images)
    check_count(batch_size, name="batch_size")
    check_choice(label_source, LABEL_SOURCES, name="label_source")


def attack_in_batches(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: BatchAttack,
    *,
    eps: int,
    label_source: str,
    batch_size: int,
    progress: bool,
    name: str,
) -> Tensor:
    """Check the input, then collect ``attack(images, labels)``, uint8, batch by batch, on ``net``'s device.

    ``attack`` gets uint8 images and the labels it should lead away from: the true ones or the network's predictions on
    the clean images, by ``label_source``.
    """
    check_input(net, images, labels, label_source=label_source, batch_size=batch_size)
    check_eps(eps)
    if eps == 0:
        return images.clone()
    return _collect(net, images, labels, attack, torch.uint8, label_source, batch_size, progress, name)


def search_in_batches(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    search: BatchAttack,
    *,
    label_source: str,
    batch_size: int,
    progress: bool,
    name: str,
) -> Tensor:
    """The same for a search that knows no eps: ``search(images, labels)`` is float32 in [0, 1]."""
    check_input(net, images, labels, label_source=label_source, batch_size=batch_size)
    return _collect(net, images, labels, search, torch.float32, label_source, batch_size, progress, name)


def _collect(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: BatchAttack,
    dtype: torch.dtype,
    label_source: str,
    batch_size: int,
    progress: bool,
    name: str,
) -> Tensor:
    device = device_of(net, images)
    # gradients are needed, whatever mode the caller is in
    with torch.inference_mode(False), torch.enable_grad():
        found = torch.empty(images.shape, dtype=dtype, device=images.device)
        for batch in batches(len(images), batch_size, progress=progress, name=name):
            # a copy of the labels: under inference_mode the caller's cannot be saved for a gradient
            clean, chosen = images[batch].to(device), labels[batch].to(device, copy=True)
            if label_source == "predicted":
                with torch.no_grad():
                    chosen = checked_logits(net, to_unit(clean)).argmax(dim=1)
            found[batch] = attack(clean, chosen).to(images.device)
    return found


def batches(count: int, size: int, *, progress: bool, name: str) -> Iterator[slice]:
    """Slices of at most ``size`` that cover 0..count-1, under a progress bar that counts images."""
    with tqdm(total=count, unit="image", desc=name, disable=not progress) as bar:
        for start in range(0, count, size):
            end = min(start + size, count)
            yield slice(start, end)
            bar.update(end - start)


def gradient_sign(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Sign (int16: -1, 0 or 1) of the gradient of the cross-entropy with respect to each sub-pixel of uint8 ``images``.

    Scaling levels to [0, 1] does not change the sign. Nothing is left behind in the network: no ``.grad``, no state.

    A known limit of FGSM, BIM and BPDA, which follow it: where the label's logit is above the others by more than about 16.6
    nats, its float32 probability is exactly 1. Then it has no part in the gradient, which only raises the other classes.

    Raises ``ValueError`` for logits that are not finite, that do not depend differentiably on the images, or whose
    gradient is NaN.
    """
    pixels = to_unit(images).requires_grad_()
    # the sum, unlike the mean, makes the result independent of the batch
    loss = F.cross_entropy(checked_logits(net, pixels), labels, reduction="sum")
    return gradient_of(loss, pixels).sign().to(torch.int16)


def gradient_of(output: Tensor, inputs: Tensor, *, retain_graph: bool = False) -> Tensor:
    """Gradient of the scalar ``output``, made from a network's logits, with respect to ``inputs``.

    Raises ``ValueError`` where there is none and where it is NaN.
    """
    gradient = None
    if output.requires_grad:
        gradient = torch.autograd.grad(output, inputs, allow_unused=True, retain_graph=retain_graph)[0]
    if gradient is None:
        raise ValueError("net's logits do not depend differentiably on the images; this attack needs their gradient")
    if gradient.isnan().any():
        raise ValueError("the gradient of the network's output with respect to the images is NaN")
    return gradient


def step_within(levels: Tensor, clean: Tensor, step: Tensor, eps: int | Tensor) -> Tensor:
    """``levels + step``, projected on the L-infinity ball of radius ``eps`` around ``clean`` and on 0..255; uint8.

    All in integers of 16 bits or more, where nothing wraps and nothing needs rounding.
    """
    centre = clean.to(torch.int16)
    moved = levels.to(torch.int16) + step.to(torch.int16)
    moved = torch.minimum(torch.maximum(moved, centre - eps), centre + eps)
    return moved.clamp(0, 255).to(torch.uint8)
