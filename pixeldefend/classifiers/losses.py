"""What each way of training minimises: cross-entropy, with smoothed labels, or on adversarial examples as well.

The attacks here are not those of `pixeldefend.attacks`: they follow weights that are still changing, with an eps that is
drawn anew each time and is not an integer, and what they return is not rounded. Pixels are in [0, 1] throughout, eps and
standard deviations in colour levels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import CLASSES
from ..scaling import TOP

Loss = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
Attack = Callable[[nn.Module, Tensor, float], Tensor]

WRONG_MASS = 0.1  # of a smoothed label: what the wrong classes get together
ADVERSARIAL_WEIGHT = 0.3  # of an adversarial example's loss, where a clean one's counts 1
TRUNCATION = 2  # standard deviations


def cross_entropy(model: nn.Module, pixels: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean cross-entropy on a batch, and the numbers to log.

    Args:
        model: from float32 (N, C, H, W) in [0, 1] to logits (N, 10).
        pixels: such a batch.
        labels: int64 (N,), the true classes.

    Returns the loss, a scalar, and ``{"accuracy": a scalar in 0..1}``.
    """
    logits = model(pixels).float()
    return F.cross_entropy(logits, labels), {"accuracy": share_right(logits, labels)}


def smoothed_cross_entropy(model: nn.Module, pixels: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """`cross_entropy` with 0.9 for the true class and 0.1 / 9 for each other class (section 2.2, label smoothing).

    The paper calls the 0.1 a small constant; its value is that of the authors' code.
    """
    logits = model(pixels).float()
    # torch shares its label_smoothing among all classes, the true one included; the paper among the wrong ones only
    smoothing = WRONG_MASS * CLASSES / (CLASSES - 1)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing), {"accuracy": share_right(logits, labels)}


def adversarial_cross_entropy(
    model: nn.Module, pixels: Tensor, labels: Tensor, *, attack: Attack, std: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy on a batch of which the second half has been replaced by adversarial examples (appendix B).

    The paper says that examples are made on the fly and refers to Kurakin et al. (2016); the rest is from the authors'
    code. The adversarial half is made against the present weights in eval mode, so with the running statistics of the
    batch normalisation; then the mixed batch passes once, in training mode. An adversarial example weighs 0.3 of a
    clean one: with halves of equal size the loss is (clean mean + 0.3 adversarial mean) / 1.3. One departure: their BIM
    flips the images anew before each step; here a flipped image stays flipped.

    Args:
        attack: the adversarial versions of pixels (M, C, H, W), without a graph, for a model in eval mode and ``std``.
        std: see `draw_eps`.

    Returns the loss and ``{"accuracy": on the clean half, "adversarial_accuracy": on the other}``. The clean half has
    the odd image. Raises ``ValueError`` for a batch of fewer than 2 images.
    """
    if len(pixels) < 2:
        raise ValueError(f"adversarial training halves its batches: they need at least 2 images, not {len(pixels)}")
    adversarial = len(pixels) // 2
    clean = len(pixels) - adversarial
    with evaluating(model):
        attacked = attack(model, pixels[clean:], std)
    logits = model(torch.cat([pixels[:clean], attacked])).float()
    weights = torch.full((len(pixels),), 2 / (1 + ADVERSARIAL_WEIGHT), device=pixels.device)
    weights[clean:] *= ADVERSARIAL_WEIGHT
    loss = (weights * F.cross_entropy(logits, labels, reduction="none")).mean()
    return loss, {
        "accuracy": share_right(logits[:clean], labels[:clean]),
        "adversarial_accuracy": share_right(logits[clean:], labels[clean:]),
    }


def share_right(logits: Tensor, labels: Tensor) -> Tensor:
    """The fraction of the logits, (N, 10), whose largest is that of the label; a scalar."""
    return (logits.argmax(dim=1) == labels).float().mean()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in eval mode for a block, and afterwards, whatever happens in it, back in the mode it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def draw_eps(count: int, std: float) -> Tensor:
    """The absolute value of normal variables of standard deviation ``std`` truncated at 2 std: float32 (count,), CPU.

    Appendix B; in colour levels. Drawn from torch's global generator, which `loop.seeded` seeds for each step.
    """
    bound = TRUNCATION * std
    return nn.init.trunc_normal_(torch.empty(count), std=std, a=-bound, b=bound).abs()


def fgsm_examples(model: nn.Module, pixels: Tensor, std: float) -> Tensor:
    """FGSM with an eps of its own for each image, from `draw_eps`, kept within [0, 1]; (N, C, H, W).

    It leads away from the class that ``model`` predicts for the clean image, not from the true one, which the network
    could learn to read off the perturbation (appendix B: label leaking).
    """
    eps = draw_eps(len(pixels), std).to(pixels.device).view(-1, 1, 1, 1)
    return (pixels + eps / TOP * uphill(model, pixels)[0]).clamp(0, 1)


def bim_examples(model: nn.Module, pixels: Tensor, std: float) -> Tensor:
    """BIM with one eps for the whole batch, kept within eps of ``pixels`` and within [0, 1]; (N, C, H, W).

    Its floor(min(eps + 4, 1.25 eps)) steps of one level (section 2.1) are as many for every image: the authors' code,
    too, draws one eps per batch. An eps below 0.8 allows no step, and the images stay clean. Where the authors' code
    leads away from the true label and lets the last steps leave the ball of radius eps, the paper is followed: away
    from the class predicted for the clean image (appendix B), and projected (section 2.1).
    """
    eps = draw_eps(1, std).item()
    low, high = (pixels - eps / TOP).clamp(min=0), (pixels + eps / TOP).clamp(max=1)
    moved, labels = pixels, None
    for _ in range(int(min(eps + 4, 1.25 * eps))):
        sign, labels = uphill(model, moved, labels)
        moved = (moved + sign / TOP).clamp(low, high)
    return moved


def uphill(model: nn.Module, pixels: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The sign (-1, 0 or 1) of the gradient of the cross-entropy with respect to ``pixels``, and the labels used.

    Without ``labels``, int64 (N,), those are the predictions of the same pass. Only gradients on the way to the pixels
    are computed, and none is stored: freezing the parameters as well saves no time.
    """
    pixels = pixels.detach().requires_grad_()
    logits = model(pixels).float()
    if labels is None:
        labels = logits.argmax(dim=1)
    # the sum: the mean would make gradients smaller, where they may already be close to vanishing
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), pixels)
    return gradient.sign(), labels


LOSSES: dict[str, Loss] = {"normal": cross_entropy, "label-smoothing": smoothed_cross_entropy}
ATTACKS: dict[str, Attack] = {"adversarial-fgsm": fgsm_examples, "adversarial-bim": bim_examples}
TRAININGS = (*LOSSES, *ATTACKS)  # every way of training


def loss_of(training: str, adversarial_std: float) -> Loss:
    """What to minimise in the way of training called ``training``, one of `TRAININGS`."""
    if training in ATTACKS:
        return partial(adversarial_cross_entropy, attack=ATTACKS[training], std=adversarial_std)
    return LOSSES[training]
