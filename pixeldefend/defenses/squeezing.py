"""Feature squeezing (Xu et al. 2017; the paper, section 2.2 and appendix B): fewer colours, then a median filter."""

import torch
from torch import Tensor, nn

from ..checks import LEVELS, check_count, check_images
from ..scaling import TOP


def squeeze(images: Tensor, *, levels: int) -> Tensor:
    """Reduce uint8 ``images`` (N, C, H, W) to ``levels`` colours per channel, then smooth each channel; same shape.

    The colours are spread evenly over 0..255, both ends included: a level x becomes colour ``round(x (levels - 1) /
    255)``, which sits at ``round(colour 255 / (levels - 1))``. So black and white stay what they are, and squeezing to
    the same number of colours again changes nothing. The paper says neither where the colours sit nor how to round; the
    authors' code has the same colours, but keeps them as fractions of 255, which here are rounded to levels.

    The 2 x 2 median filter then looks at each sub-pixel, the one above, the one to the left and the one above that. Four
    values have no middle one: as in the authors' code, the second-largest is taken. Above the first row the image is
    mirrored with the edge not repeated (its second row), and likewise to the left of the first column.

    The authors' code returns nothing at all on Fashion-MNIST (it looks for another name); here both data sets are
    squeezed, as the paper has it.

    Args:
        images: H and W at least 2, because of the mirror.
        levels: number of colours, 2..256; the paper has 8 for Fashion-MNIST and 32 for CIFAR-10.

    Raises ``TypeError`` or ``ValueError`` for anything else.
    """
    check_images(images)
    if min(images.shape[2:]) < 2:
        raise ValueError(f"images must be at least 2 x 2 for the median filter, not {tuple(images.shape[2:])}")
    return median_2x2(quantise(images, levels))


def quantise(images: Tensor, levels: int) -> Tensor:
    """The nearest of ``levels`` evenly spaced colours to each sub-pixel of uint8 ``images``, in integer arithmetic."""
    check_count(levels, name="levels")
    if not 2 <= levels <= LEVELS:
        raise ValueError(f"levels must lie in 2..{LEVELS} colours, not {levels}")
    steps = levels - 1
    of_level = torch.arange(LEVELS, device=images.device)
    colour = (2 * of_level * steps + TOP) // (2 * TOP)
    table = (2 * colour * TOP + steps) // (2 * steps)  # halves up
    return table.to(torch.uint8)[images.long()]


def median_2x2(images: Tensor) -> Tensor:
    """Second-largest of each sub-pixel and its neighbours above, to the left and above left, mirrored at the edges."""
    above = torch.cat([images[:, :, 1:2], images[:, :, :-1]], dim=2)
    both = torch.stack([images, above])
    left = torch.cat([both[..., 1:2], both[..., :-1]], dim=-1)
    return torch.cat([both, left]).sort(dim=0).values[2]


class MedianFiltered(nn.Module):
    """A classifier behind the median filter of `squeeze`, without its reduction of colours; for attacks.

    The authors' FGSM, BIM and DeepFool differentiate through this when they attack feature squeezing: the filter passes a
    gradient on to the sub-pixel that it chose, whereas the reduction of colours would stop it. The paper does not say.

    Args:
        net: from float32 (N, C, H, W) in [0, 1] to logits (N, 10). As a part of this module it shares its mode.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.train(net.training)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(median_2x2(pixels))
