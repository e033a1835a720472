"""The PixelCNN evaluated pixel by pixel, every activation computed once.

Decoding (sampling, or the greedy purification of algorithm 1) needs the network's answer at every pixel after the pixels
before it have been chosen. Done naively that is one forward pass per pixel; here it is about the arithmetic of one
forward pass in all, the idea of Ramachandran et al. (2017), which the paper adopts (section 4.1):

* the vertical stream of row i depends on earlier rows only: it is computed a whole row at a time;
* in the horizontal stream, whatever comes from the row above or from the vertical stream is known when a row starts and
  is computed for the whole row; per pixel remain the tap to the left and the pixel's own;
* the half and quarter resolutions run on every second and fourth row and column only.

Rows are stored as (width, batch, features), so that one column is a contiguous matrix and a row of a convolution is a sum
of matrix products on shifted views, with no copies. What is remembered per layer is one row, so memory grows with the
batch and the width only.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import GatedBlock, ShiftedConv
from .logistic import scale_levels
from .network import LEVELS_OF_RESOLUTION, Network
from .rows import VerticalStream, activate, active_levels, add_product, kernel_matrices

# choose(parameters, row, column) -> levels: from the network's numbers for one pixel, (B, outputs), in float32, to the
# levels of its channels, uint8 (B, C)
Choose = Callable[[Tensor, int, int], Tensor]


@torch.no_grad()
def decode(network: Network, canvas: Tensor, choose: Choose, *, dtype: torch.dtype = torch.float32,
           on_row: Callable[[], None] | None = None) -> Tensor:
    """Fill ``canvas`` (uint8, (B, C, H, W), H and W multiples of 4) in raster order, in place, and return it.

    ``choose`` is asked once per pixel. ``dtype`` is that of the network's arithmetic. ``on_row`` is called after each row.
    """
    batch, channels, height, width = canvas.shape
    vertical, horizontal = VerticalStream(network, dtype), HorizontalStream(network, dtype)
    above = None
    for i in range(height):
        nodes = vertical.row(i, above, batch, width)
        horizontal.start_row(i, above, nodes)
        for j in range(width):
            levels = choose(horizontal.pixel(i, j), i, j)
            canvas[:, :, i, j] = levels
            horizontal.set_pixel(j, _with_ones(scale_levels(levels, dtype)))
        horizontal.end_row()
        above = _with_ones(scale_levels(canvas[:, :, i].permute(2, 0, 1), dtype))
        if on_row is not None:
            on_row()
    return canvas


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)


class PixelConv:
    """A down-right layer (2 x 2): what comes from above for a whole row, then the left and the own tap per pixel."""

    def __init__(self, layer: ShiftedConv, dtype: torch.dtype):
        (self.above_left, self.above), (self.left, self.own) = kernel_matrices(layer, dtype)
        self.bias = layer.b.detach().to(dtype)
        self.stride = layer.stride
        self.current: Tensor | None = None  # this row's input, (1 + W, B, I), its first column zero
        self.previous: Tensor | None = None  # the row before's

    def start_row(self, width: int, batch: int) -> Tensor:
        """Contributions of the row above, (W / stride, B, O); ``width`` counts the input's columns."""
        base = self.bias.repeat(width // self.stride, batch, 1)
        if self.previous is not None:
            add_product(self.previous[:width : self.stride], self.above_left, base)
            add_product(self.previous[1 :: self.stride], self.above, base)
        self.current = self.bias.new_zeros(1 + width, batch, len(self.own))
        return base

    def pixel(self, base: Tensor, j: int) -> Tensor:
        """Add the left and the own tap of input column ``j`` to ``base`` (B, O), in place."""
        return base.addmm_(self.current[j], self.left).addmm_(self.current[j + 1], self.own)

    def end_row(self) -> None:
        self.previous = self.current


class PixelBlock:
    """A gated block of the horizontal stream."""

    def __init__(self, block: GatedBlock, dtype: torch.dtype):
        self.conv_in, self.conv_out = PixelConv(block.conv_in, dtype), PixelConv(block.conv_out, dtype)
        skip = kernel_matrices(block.skip, dtype)[0][0]
        inputs = 2 * block.conv_in.v.shape[0]
        self.from_vertical, self.from_twin = skip[:inputs].contiguous(), skip[inputs:].contiguous()
        self.conv_in.bias = self.conv_in.bias + block.skip.b.detach().to(dtype)

    def start_row(self, vertical: Tensor) -> None:
        width, batch = vertical.shape[:2]
        self.base_in = self.conv_in.start_row(width, batch)
        add_product(vertical, self.from_vertical, self.base_in)
        self.base_out = self.conv_out.start_row(width, batch)

    def pixel(self, x: Tensor, j: int, twin: Tensor | None = None) -> Tensor:
        _activate_into(x, self.conv_in.current[j + 1])
        h = self.conv_in.pixel(self.base_in[j], j)
        if twin is not None:
            h.addmm_(twin, self.from_twin)
        _activate_into(h, self.conv_out.current[j + 1])
        value, gate = self.conv_out.pixel(self.base_out[j], j).chunk(2, dim=-1)
        return torch.addcmul(x, value, torch.sigmoid(gate))

    def end_row(self) -> None:
        self.conv_in.end_row()
        self.conv_out.end_row()


def _activate_into(x: Tensor, out: Tensor) -> None:
    features = x.shape[-1]
    out[:, :features] = x
    torch.neg(x, out=out[:, features:])
    F.elu_(out)


class HorizontalStream:
    """All of the horizontal stream and the head: `start_row`, then `pixel` and `set_pixel` for each column, `end_row`."""

    def __init__(self, network: Network, dtype: torch.dtype):
        self.dtype, self.filters = dtype, network.config.filters
        (self.above_taps,) = kernel_matrices(network.horizontal_input_above, dtype)
        self.above_bias = network.horizontal_input_above.b.detach().to(dtype)
        (self.left_above,), (self.left_own,) = kernel_matrices(network.horizontal_input_left, dtype)
        self.left_bias = network.horizontal_input_left.b.detach().to(dtype)
        self.up = [[PixelBlock(b, dtype) for b in level] for level in network.horizontal_up]
        self.down = [[PixelBlock(b, dtype) for b in level] for level in reversed(network.horizontal_down)]
        self.shrink = [PixelConv(layer, dtype) for layer in network.horizontal_shrink]
        self.grow = [
            (layer.weight().detach().to(dtype), layer.b.detach().to(dtype)) for layer in reversed(network.horizontal_grow)
        ]
        self.head = kernel_matrices(network.head, torch.float32)[0][0]
        self.head_bias = network.head.b.detach().float()
        self.coarse: list[Tensor | None] = [None] * LEVELS_OF_RESOLUTION  # each level's last row of the down pass
        self.shrink_base: list[Tensor | None] = [None] * len(self.shrink)

    def start_row(self, i: int, above: Tensor | None, nodes: tuple[list, list]) -> None:
        up, down = nodes
        self.levels = active_levels(i)
        width, batch = up[0][0].shape[:2]
        self.base = self._input_row(above, width, batch)
        for k in self.levels:
            for block, vertical in zip(self.up[k] + self.down[k], up[k] + down[k], strict=True):
                block.start_row(vertical)
            self.coarse[k] = self.base.new_empty(width >> k, batch, self.filters)
            if k < LEVELS_OF_RESOLUTION - 1:
                self.shrink_base[k] = self.shrink[k].start_row(width >> k, batch)

    def _input_row(self, above: Tensor | None, width: int, batch: int) -> Tensor:
        """Everything in the input layers that earlier rows decide. Shifted-in rows and columns are zero, bias included."""
        base = torch.zeros(width, batch, self.filters, dtype=self.dtype, device=self.head.device)
        if above is not None:
            base += self.above_bias
            padded = F.pad(above, (0, 0, 0, 0, 1, 1))
            for c, tap in enumerate(self.above_taps):
                add_product(padded[c : c + width], tap, base)
            add_product(above[:-1], self.left_above, base[1:])
        base[1:] += self.left_bias
        return base

    def set_pixel(self, j: int, x: Tensor) -> None:
        """Tell the stream the chosen value of column ``j``, (B, C + 1) with its ones."""
        if j + 1 < len(self.base):
            self.base[j + 1].addmm_(x, self.left_own)

    def pixel(self, i: int, j: int) -> Tensor:
        """The network's numbers for pixel (i, j), float32 (B, outputs)."""
        active = [k for k in active_levels(j) if k in self.levels]
        nodes: list[list[Tensor]] = [[] for _ in self.up]
        x = self.base[j]
        for k in active:
            column = j >> k
            if k > 0:
                x = self.shrink[k - 1].pixel(self.shrink_base[k - 1][column], 2 * column)
            nodes[k].append(x)
            for block in self.up[k]:
                x = block.pixel(x, column)
                nodes[k].append(x)
            if k < LEVELS_OF_RESOLUTION - 1:
                self.shrink[k].current[column + 1] = x
        for k in reversed(active):
            column = j >> k
            if k == LEVELS_OF_RESOLUTION - 1:
                x = nodes[k].pop()
            else:
                weight, bias = self.grow[k]
                x = torch.addmm(bias, self.coarse[k + 1][column >> 1], weight[:, :, (i >> k) & 1, column & 1])
            for block in self.down[k]:
                x = block.pixel(x, column, activate(nodes[k].pop()))
            self.coarse[k][column] = x
        return torch.addmm(self.head_bias, F.elu(x.float()), self.head)

    def end_row(self) -> None:
        for k in self.levels:
            for block in self.up[k] + self.down[k]:
                block.end_row()
            if k < LEVELS_OF_RESOLUTION - 1:
                self.shrink[k].end_row()
