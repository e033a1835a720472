"""BIM: the basic iterative method (Kurakin et al. 2016; the paper, section 2.1)."""

from torch import Tensor, nn

from ..checks import check_count, check_eps
from ._common import attack_in_batches, gradient_sign, step_within


def bim_iterations(eps: int) -> int:
    """Number of steps, ``floor(min(eps + 4, 1.25 eps))`` (section 2.1): 2, 10, 20, 29 for eps 2, 8, 16, 25."""
    check_eps(eps)
    return min(eps + 4, 5 * eps // 4)


def bim(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: int,
    steps: int | None = None,
    label_source: str = "true",
    batch_size: int = 100,
    progress: bool = False,
) -> Tensor:
    """``X_{n+1} = Clip(X_n + sign(grad_X L(X_n, y)))``, from ``X_0 = X``, in steps of one level.

    Clip keeps each image within eps levels of the original and within 0..255; L is the cross-entropy. There is no
    random start. The paper writes y for the label in every attack; the authors' BIM uses the true label, which is the
    default here. With "predicted" it is the network's prediction on the clean image, throughout.

    Args:
        net: in eval mode, from float32 (N, C, H, W) in [0, 1] to logits (N, 10); its state and gradients do not change.
        images: uint8 (N, C, H, W).
        labels: int64 (N,), the true classes; not used with ``label_source="predicted"``.
        eps: colour levels, an integer in 0..255; 0 returns a copy.
        steps: how many, at least 1; by default as many as in the paper, `bim_iterations`.
        label_source: "true" or "predicted".

    Returns the adversarial images, uint8 (N, C, H, W), on the images' device. Raises ``TypeError`` or ``ValueError``
    for bad input, a network in training mode, and logits that are not (N, 10), not finite or not differentiable.
    """

    if steps is not None:
        check_count(steps, name="steps")

    def all_steps(clean: Tensor, chosen: Tensor) -> Tensor:
        levels = clean
        for _ in range(bim_iterations(eps) if steps is None else steps):
            levels = step_within(levels, clean, gradient_sign(net, levels, chosen), eps)
        return levels

    return attack_in_batches(
        net, images, labels, all_steps,
        eps=eps, label_source=label_source, batch_size=batch_size, progress=progress, name="BIM",
    )
