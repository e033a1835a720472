"""FGSM: the fast gradient sign method (Goodfellow et al. 2014; the paper, section 2.1)."""

from torch import Tensor, nn

from ._common import attack_in_batches, gradient_sign, step_within


def fgsm(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: int,
    label_source: str = "predicted",
    batch_size: int = 100,
    progress: bool = False,
) -> Tensor:
    """``X + eps sign(grad_X L(X, y))``, clipped to 0..255, with L the cross-entropy.

    The paper writes y for the label in every attack; the authors' FGSM uses the network's own prediction, which is the
    default here.

    Args:
        net: in eval mode, from float32 (N, C, H, W) in [0, 1] to logits (N, 10); its state and gradients do not change.
        images: uint8 (N, C, H, W).
        labels: int64 (N,), the true classes; not used with ``label_source="predicted"``.
        eps: colour levels, an integer in 0..255; 0 returns a copy.
        label_source: "predicted" or "true".

    Returns the adversarial images, uint8 (N, C, H, W), on the images' device. Raises ``TypeError`` or ``ValueError``
    for bad input, a network in training mode, and logits that are not (N, 10), not finite or not differentiable.
    """

    def one_step(clean: Tensor, chosen: Tensor) -> Tensor:
        return step_within(clean, clean, eps * gradient_sign(net, clean, chosen), eps)

    return attack_in_batches(
        net, images, labels, one_step,
        eps=eps, label_source=label_source, batch_size=batch_size, progress=progress, name="FGSM",
    )
