"""Weight-normalised causal layers of the PixelCNN++ (Salimans et al. 2017, section 2; Salimans & Kingma 2016).

Causality comes from padding and shifting, never from masks. A *down* layer sees the rows above and, one row up to its
own row, three columns around its own; a *down-right* layer sees its own position, the one to the left and the two above
those. Every layer is ``W x + b`` with ``W = g V / |V|`` (one norm per output map).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def concat_elu(x: Tensor) -> Tensor:
    """ELU of ``x`` and of ``-x``, stacked along the channels: (N, F, H, W) -> (N, 2F, H, W)."""
    return F.elu(torch.cat([x, -x], dim=1))


def gate_and_activate(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """End of a block: ``x + a * sigmoid(b)`` with (a, b) the two halves of ``h``, and its `concat_elu`."""
    value, gate = h.chunk(2, dim=1)
    x = x + value * torch.sigmoid(gate)
    return x, concat_elu(x)


class Elementwise(NamedTuple):
    """The two functions between convolutions. They move more memory than they compute, so training may compile them."""

    concat_elu: Callable[[Tensor], Tensor]
    gate_and_activate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


EAGER = Elementwise(concat_elu, gate_and_activate)


class WeightNormLayer(nn.Module):
    """Parameters ``V``, ``g``, ``b`` and the effective weight of one weight-normalised layer.

    ``init_scale`` is the standard deviation that data-dependent initialisation gives the layer's outputs.
    """

    out_dim = 0  # which dimension of V counts the output maps

    def __init__(self, shape: tuple[int, ...], *, init_scale: float = 1.0):
        super().__init__()
        maps = shape[self.out_dim]
        self.init_scale = init_scale
        self.v = nn.Parameter(torch.empty(shape))
        self.g = nn.Parameter(torch.ones(maps))
        self.b = nn.Parameter(torch.zeros(maps))

    def weight(self) -> Tensor:
        """The effective weight ``g V / |V|``, shaped as ``V``."""
        axes = [d for d in range(self.v.ndim) if d != self.out_dim]
        one_per_map = [-1 if d == self.out_dim else 1 for d in range(self.v.ndim)]
        scale = self.g.view(one_per_map) * torch.rsqrt(self.v.square().sum(axes, keepdim=True))
        return self.v * scale


class ShiftedConv(WeightNormLayer):
    """A convolution whose padding makes it causal; ``right=True`` pads only on the left (a down-right layer)."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], *, right: bool = False, stride: int = 1,
                 init_scale: float = 1.0):
        super().__init__((outputs, inputs, *kernel), init_scale=init_scale)
        rows, columns = kernel
        self.stride = stride
        side = (columns - 1, 0) if right else ((columns - 1) // 2, (columns - 1) // 2)
        self.padding = (*side, rows - 1, 0)  # left, right, top, bottom

    def forward(self, x: Tensor) -> Tensor:
        if any(self.padding):
            x = F.pad(x, self.padding)
        return F.conv2d(x, self.weight(), self.b, stride=self.stride)


class ShiftedTransposedConv(WeightNormLayer):
    """A transposed convolution of stride 2 that doubles height and width and keeps the order of the pixels."""

    out_dim = 1

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], *, right: bool = False):
        super().__init__((inputs, outputs, *kernel))
        self.left = 0 if right else (kernel[1] - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        y = F.conv_transpose2d(x, self.weight(), self.b, stride=2, output_padding=1)
        return y[:, :, :height, self.left : self.left + width]


class GatedBlock(nn.Module):
    """Gated residual block: ``x + a * sigmoid(b)`` where (a, b) come from two causal convolutions.

    It takes ``x`` (N, F, H, W) and ``concat_elu(x)``, which its neighbours need too, so the network computes it once.
    ``skips`` counts the other nodes (each given as its own ``concat_elu``) that enter through a 1 x 1 convolution.
    """

    def __init__(self, filters: int, *, right: bool, skips: int = 0, dropout: float = 0.0):
        super().__init__()
        kernel = (2, 2) if right else (2, 3)
        self.conv_in = ShiftedConv(2 * filters, filters, kernel, right=right)
        self.skip = ShiftedConv(2 * filters * skips, filters, (1, 1)) if skips else None
        self.dropout = nn.Dropout(dropout)
        self.elementwise = EAGER
        self.conv_out = ShiftedConv(2 * filters, 2 * filters, kernel, right=right, init_scale=0.1)

    def forward(self, x: Tensor, activated: Tensor, *skips: Tensor) -> tuple[Tensor, Tensor]:
        h = self.conv_in(activated)
        if self.skip is not None:
            h = h + self.skip(torch.cat(skips, dim=1) if len(skips) > 1 else skips[0])
        h = self.conv_out(self.dropout(self.elementwise.concat_elu(h)))
        return self.elementwise.gate_and_activate(x, h)
