"""What both streams of the incremental pass are made of: windows over two rows, weights to match, activations.

Everything is stored position first and batch last, (columns, features, batch): one position of a whole batch is one
contiguous matrix, a convolution is one matrix product on a contiguous window of it, and nothing is ever copied or
allocated on the way.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .layers import ShiftedConv
from .network import LEVELS_OF_RESOLUTION


def active_levels(position: int) -> list[int]:
    """The levels of resolution that have an element at this row or column: all of 0, 1, 2 on every fourth."""
    return [k for k in range(LEVELS_OF_RESOLUTION) if position % 2**k == 0]


class Space:
    """Where the pass is computed: batch and width, the arithmetic's dtype and device; makes the buffers."""

    def __init__(self, batch: int, width: int, filters: int, dtype: torch.dtype, device: torch.device):
        self.batch, self.width, self.filters = batch, width, filters
        self.options = {"dtype": dtype, "device": device}
        self.bytes = 0  # of all buffers made so far

    def zeros(self, *shape: int) -> Tensor:
        """Zeros of shape (*shape, batch)."""
        buffer = torch.zeros(*shape, self.batch, **self.options)
        self.bytes += buffer.nbytes
        return buffer

    def weight(self, value: Tensor) -> Tensor:
        return value.detach().to(**self.options).contiguous()

    def bias(self, layer: ShiftedConv) -> Tensor:
        """The bias of a layer, (outputs, 1), to add to every image of the batch."""
        return self.weight(layer.b)[:, None]


class Window:
    """The last two rows of a layer's input, row r in slot r % 2, and the windows that a convolution sees of them.

    ``seen[c]`` is (columns * 2 * channels, batch): what output column c sees, a border of zeros included. ``own[p]``
    is the row in slot p, (width, channels, batch), to be written to.
    """

    def __init__(self, space: Space, width: int, channels: int, *, columns: int, stride: int = 1):
        self.data = space.zeros(1 + width + (columns - 2), 2, channels)
        column = self.data.stride(0)
        shape = (width // stride, columns * 2 * channels, space.batch)
        self.seen = self.data.as_strided(shape, (stride * column, space.batch, 1))
        self.own = [self.data[1 : 1 + width, slot] for slot in (0, 1)]

    def clear(self) -> None:
        self.data.zero_()


class Halves(NamedTuple):
    """Where an activation is written to: ``whole`` (..., 2F, B) and its two halves along the features."""

    whole: Tensor
    first: Tensor
    second: Tensor


def halves(x: Tensor) -> Halves:
    return Halves(x, *x.chunk(2, dim=-2))


def window_matrices(layer: ShiftedConv, space: Space) -> list[Tensor]:
    """The layer's weight as a matrix (outputs, columns * 2 * inputs) for windows whose own row lies in slot 0, or 1.

    A kernel of one row looks at its own row only.
    """
    weight = layer.weight()
    if weight.shape[2] == 1:
        weight = torch.cat([torch.zeros_like(weight), weight], dim=2)
    above_first = weight.permute(0, 3, 2, 1)  # (outputs, columns, rows, inputs), the rows from above
    return [space.weight(order.flatten(1)) for order in (above_first.flip(2), above_first)]


class Scratch:
    """Room for what lives only within a block: on a row (``shape`` is its width) or on a single pixel (no shape)."""

    def __init__(self, space: Space, *shape: int):
        self.h, self.negative, self.gate = (space.zeros(*shape, space.filters) for _ in range(3))
        self.output = halves(space.zeros(*shape, 2 * space.filters))

    def first(self, width: int) -> "Scratch":
        """The part of a row's scratch that a narrower row uses."""
        part = object.__new__(Scratch)
        part.h, part.negative, part.gate = (x[:width] for x in (self.h, self.negative, self.gate))
        part.output = Halves(*(x[:width] for x in self.output))
        return part

    def activate(self, x: Tensor, out: Halves) -> None:
        """``out`` = [elu(x), elu(-x)] along the features. One exponential serves both: elu(x) = max(x, exp(-|x|) - 1)."""
        negative = torch.neg(x, out=self.negative)
        tail = torch.minimum(x, negative, out=self.gate).expm1_()
        torch.maximum(x, tail, out=out.first)
        torch.maximum(negative, tail, out=out.second)

    def add_gated(self, x: Tensor) -> None:
        """``x += a * sigmoid(b)`` with (a, b) the two halves of ``self.output``."""
        x.addcmul_(self.output.first, torch.sigmoid(self.output.second, out=self.gate))
