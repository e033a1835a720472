"""PixelDefend: greedy purification under a PixelCNN (the paper, section 4 and algorithm 1).

Each sub-pixel, in raster order, becomes the most likely level within ``eps_defend`` of its original value, given the
sub-pixels purified before it. Algorithm 1 evaluates the network once per channel; as in the authors' code it is evaluated
once per pixel, which gives the same answer for this family of models. Their code writes the result by truncation, which
lowers the levels 1..127 by one and can leave the eps ball; here images are integers end to end.
"""

import torch
from torch import Tensor, nn

from ..checks import LEVELS, check_count, check_eps, check_eval_mode, check_images, check_purified
from ..pixelcnn import PixelCNN
from ..pixelcnn.model import LogProbs, Pick
from ..pixelcnn.precision import dtype_of
from ..scaling import from_unit, to_unit


def feasible_range(images: Tensor, eps: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest feasible level of every sub-pixel, int64: line 6 of algorithm 1."""
    levels = images.long()
    return (levels - eps).clamp(min=0), (levels + eps).clamp(max=LEVELS - 1)


def most_likely_within(eps: int, device: torch.device | str = "cpu") -> Pick:
    """For `PixelCNN.decode`: the most likely level of a sub-pixel within ``eps`` of the original one (algorithm 1)."""
    # windows of equal length for all images, moved inside 0..255; levels outside the feasible range are masked
    length = min(2 * eps + 1, LEVELS)
    offsets = torch.arange(length, device=device)[:, None]

    def most_likely(log_probs: LogProbs, original: Tensor) -> Tensor:
        low, high = feasible_range(original, eps)
        start = low.clamp(max=LEVELS - length)
        outside = (offsets < low - start) | (offsets > high - start)
        return start + log_probs(start, length).masked_fill_(outside, -torch.inf).argmax(0)  # the first of equals

    return most_likely


class PixelDefend:
    """Purify images: ``PixelDefend(density, eps_defend=32)(images)``.

    Args:
        density: a `PixelCNN` in eval mode.
        eps_defend: radius in colour levels, 0..255. The paper has 32 for Fashion-MNIST and 16 for CIFAR-10; 0 returns
            the input.
        threshold: bits per dimension; ``None`` purifies every image. With a threshold this is the adaptive version
            (section 4.2): images at or below it are left as they are. The paper's text says the reverse ("below a
            threshold probability eps is zero"), its intent and its thresholds (1.8 and 3.2) say this.
        precision: of the network's arithmetic, "float32" or "bfloat16".
        batch_size: images decoded together, on each CPU thread; memory grows with it. ``None`` for a good one.

    Deterministic; the lowest level wins ties.
    """

    def __init__(self, density: PixelCNN, *, eps_defend: int, threshold: float | None = None,
                 precision: str = "float32", batch_size: int | None = None):
        if not isinstance(density, PixelCNN):
            raise TypeError(f"density must be a PixelCNN, not {type(density).__name__}")
        check_eval_mode(density, name="density")
        check_eps(eps_defend, name="eps_defend")
        dtype_of(precision)  # refuses an unknown one
        if batch_size is not None:
            check_count(batch_size, name="batch_size")
        if threshold is not None and not (isinstance(threshold, int | float) and threshold == threshold):
            raise ValueError(f"threshold must be a number of bits per dimension or None, not {threshold!r}")
        self.density, self.eps_defend, self.threshold = density, eps_defend, threshold
        self.precision, self.batch_size = precision, batch_size

    def __call__(self, images: Tensor) -> Tensor:
        """`purify` without a progress bar."""
        return self.purify(images)

    def purify(self, images: Tensor, *, progress: bool = False) -> Tensor:
        """Purified copies of ``images``: uint8 (N, C, H, W), at most ``eps_defend`` levels from the input.

        Raises:
            TypeError, ValueError: anything but uint8 images with the density's channels, sizes multiples of 4.
        """
        check_images(images, channels=self.density.shape[0])
        if self.threshold is None:
            return self._greedy(images, progress)
        bits = self.density.bits_per_dim(images, precision=self.precision, progress=progress)
        unlikely = bits > self.threshold
        purified = images.clone()
        purified[unlikely] = self._greedy(images[unlikely], progress)
        return purified

    def _greedy(self, images: Tensor, progress: bool) -> Tensor:
        if self.eps_defend == 0 or not len(images):
            return images.clone()
        pick = most_likely_within(self.eps_defend, self.density.device)
        return self.density.decode(pick, images, precision=self.precision, batch_size=self.batch_size, progress=progress)


class _Replace(torch.autograd.Function):
    """Forward: purified pixels in place of the given ones. Backward: the identity, or nothing."""

    @staticmethod
    def forward(ctx, pixels: Tensor, purified: Tensor, identity: bool) -> Tensor:
        ctx.identity = identity
        return purified

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return (gradient if ctx.identity else None), None, None


class DefendedClassifier(nn.Module):
    """A classifier behind a purifier, as one module from [0, 1] floats (N, C, H, W) to logits.

    The input is rounded to colour levels, purified, and classified by the unmodified ``classifier``. Purification has no
    useful gradient; ``gradient`` says what backward does there: "bpda" passes the gradient straight through (backward
    pass differentiable approximation with the identity, Athalye et al. 2018), "none" stops it.

    The forward pass raises ``TypeError`` or ``ValueError`` for anything but floats in [0, 1], and for a ``purify`` that does
    not return uint8 images of the shape that it was given.
    """

    def __init__(self, classifier: nn.Module, purify, *, gradient: str = "bpda"):
        super().__init__()
        check_eval_mode(classifier, name="classifier")
        if not callable(purify):
            raise TypeError(f"purify must be callable on uint8 images, not {type(purify).__name__}")
        if gradient not in ("bpda", "none"):
            raise ValueError(f"unknown gradient {gradient!r}; choose one of: bpda, none")
        self.classifier, self.purify, self.gradient = classifier, purify, gradient
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        images = from_unit(pixels.detach())
        purified = self.purify(images)
        check_purified(purified, images)
        purified = to_unit(purified).to(pixels.device)
        return self.classifier(_Replace.apply(pixels, purified, self.gradient == "bpda"))
