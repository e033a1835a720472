"""BPDA: the attack on a purified classifier that broke PixelDefend (Athalye, Carlini & Wagner 2018).

Purification has no useful gradient, but it changes little: backward, it is taken for the identity ("backward pass
differentiable approximation"). On CIFAR-10, eps 8, it left an accuracy of 9 %, where the paper's claim is 70 %.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..checks import check_count, check_purified
from ..classifiers.inference import predict
from ._common import attack_in_batches, gradient_sign, step_within

STEPS = 50


def bpda(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    purify: Callable[[Tensor], Tensor],
    eps: int,
    steps: int = STEPS,
    step_size: int = 1,
    label_source: str = "true",
    batch_size: int = 512,
    progress: bool = False,
) -> Tensor:
    """``X_{n+1} = Clip(X_n + step_size sign(grad L(net, purify(X_n), y)))`` from ``X_0 = X``, until the defence is fooled.

    The gradient is taken at the purified image, the step along its sign on the unpurified one. Clip keeps each image
    within eps levels of the original and within 0..255; L is the cross-entropy. An image whose purified version is not
    classified as its label is left as it is from then on, so that it is returned as the defence saw it fail; one that
    is wrong from the start is returned unchanged, and one that never fails is returned as of the last step.

    The published attack takes steps of 0.5 levels, at most 20 in its notebook and 100 in its script. PixelDefend sees
    integers, to which every other half step makes no difference, and so do all attacks here: a step is one level, and
    the 50 of the default go as far as their 100. It is `bim` on a ``DefendedClassifier`` but for the number of steps,
    which does not follow eps, and for stopping, on which the time depends: every step purifies every image that is left.

    Args:
        net: the classifier without its defence, in eval mode, from float32 (N, C, H, W) in [0, 1] to logits (N, 10);
            its state and gradients do not change.
        images: uint8 (N, C, H, W).
        labels: int64 (N,), the true classes; not used with ``label_source="predicted"``.
        purify: from uint8 images to uint8 images of the same shape, for example a ``PixelDefend``; not differentiated.
            Deterministic: an image is not purified again after it has failed. A success is one against this purifier;
            PixelDefend in another precision breaks near-ties otherwise, and may be right on the same image.
        eps: colour levels, an integer in 0..255; 0 returns a copy.
        steps: at most so many, at least 1, and as many purifications.
        step_size: colour levels, an integer of at least 1.
        label_source: "true", or "predicted": what ``net`` makes of the clean images, unpurified.
        batch_size: images purified together; PixelDefend is slow in batches below some hundred.

    Returns the adversarial images, uint8 (N, C, H, W), on the images' device. Raises ``TypeError`` or ``ValueError``
    for bad input, a network in training mode, logits that are not (N, 10), not finite or not differentiable, and for a
    ``purify`` that is not callable or does not return uint8 images of the shape that it was given.
    """
    if not callable(purify):
        raise TypeError(f"purify must be callable on uint8 images, not {type(purify).__name__}")
    check_count(steps, name="steps")
    check_count(step_size, name="step_size")

    def all_steps(clean: Tensor, chosen: Tensor) -> Tensor:
        levels, live = clean.clone(), torch.arange(len(clean), device=clean.device)
        for _ in tqdm(range(steps), unit="step", desc="BPDA steps", leave=False, disable=not progress):
            purified = _purified(purify, levels[live])
            right = predict(net, purified) == chosen[live]
            live, purified = live[right], purified[right]
            if not len(live):
                break
            step = step_size * gradient_sign(net, purified, chosen[live])
            levels[live] = step_within(levels[live], clean[live], step, eps)
        return levels

    return attack_in_batches(
        net, images, labels, all_steps,
        eps=eps, label_source=label_source, batch_size=batch_size, progress=progress, name="BPDA",
    )


@torch.no_grad()
def _purified(purify: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """``purify(images)``, on the images' device, refused unless uint8 and of the same shape."""
    purified = purify(images)
    check_purified(purified, images)
    return purified.to(images.device)
