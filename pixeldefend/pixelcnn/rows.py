"""The vertical stream of the PixelCNN, one row of the image at a time: half of the incremental pass (see `incremental`).

Rows are stored as (width, batch, features), so that a row of a convolution is a sum of matrix products on shifted views,
with no copies. Every layer remembers one row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import GatedBlock, ShiftedConv, ShiftedTransposedConv
from .network import LEVELS_OF_RESOLUTION, Network


def activate(x: Tensor) -> Tensor:
    return F.elu_(torch.cat([x, -x], dim=-1))


def add_product(x: Tensor, weight: Tensor, out: Tensor) -> None:
    """out += x @ weight over the last dimension; ``out`` is contiguous."""
    out.view(-1, out.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight)


def kernel_matrices(layer: ShiftedConv, dtype: torch.dtype) -> list[list[Tensor]]:
    """One (inputs, outputs) matrix for each row and column of the layer's kernel."""
    weight = layer.weight().detach().to(dtype)
    rows, columns = weight.shape[2:]
    return [[weight[:, :, r, c].t().contiguous() for c in range(columns)] for r in range(rows)]


def active_levels(position: int) -> list[int]:
    """The levels of resolution that have an element at this row or column: all of 0, 1, 2 on every fourth."""
    return [k for k in range(LEVELS_OF_RESOLUTION) if position % 2**k == 0]


class RowConv:
    """A down layer (2 x 3, stride 1 or 2), one row at a time; it remembers the row before."""

    def __init__(self, layer: ShiftedConv, dtype: torch.dtype):
        self.above_taps, self.own_taps = kernel_matrices(layer, dtype)
        self.bias = layer.b.detach().to(dtype)
        self.stride = layer.stride
        self.above: Tensor | None = None

    def remember(self, x: Tensor) -> Tensor:
        """Keep ``x`` (W, B, I) as the row above the next one; return it with its border of zeros."""
        self.above = F.pad(x, (0, 0, 0, 0, 1, 1))
        return self.above

    def row(self, x: Tensor) -> Tensor:
        above = self.above
        own = self.remember(x)
        width = x.shape[0]
        y = self.bias.repeat(width // self.stride, x.shape[1], 1)
        for padded, taps in ((above, self.above_taps), (own, self.own_taps)):
            if padded is not None:
                for c, tap in enumerate(taps):
                    add_product(padded[c : c + width : self.stride], tap, y)
        return y


class RowBlock:
    """A gated block of the vertical stream, one row at a time."""

    def __init__(self, block: GatedBlock, dtype: torch.dtype):
        self.conv_in, self.conv_out = RowConv(block.conv_in, dtype), RowConv(block.conv_out, dtype)
        self.skip = None
        if block.skip is not None:
            self.skip = kernel_matrices(block.skip, dtype)[0][0]
            self.conv_in.bias = self.conv_in.bias + block.skip.b.detach().to(dtype)

    def row(self, node: tuple[Tensor, Tensor], skip: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, activated = node
        h = self.conv_in.row(activated)
        if skip is not None:
            add_product(skip, self.skip, h)
        value, gate = self.conv_out.row(activate(h)).chunk(2, dim=-1)
        x = torch.addcmul(x, value, torch.sigmoid(gate))
        return x, activate(x)


class RowGrow:
    """The vertical stream's transposed convolution (2 x 3, stride 2): one coarse row gives two fine ones."""

    def __init__(self, layer: ShiftedTransposedConv, dtype: torch.dtype):
        self.weight = layer.weight().detach().to(dtype)  # (I, O, 2, 3)
        self.bias = layer.b.detach().to(dtype)

    def row(self, x: Tensor, parity: int) -> Tensor:
        before, own, after = (self.weight[:, :, parity, c] for c in (2, 1, 0))
        y = self.bias.repeat(2 * x.shape[0], x.shape[1], 1)
        y[0::2] += x @ own
        y[1::2] += x @ before
        y[1:-1:2] += x[1:] @ after
        return y


class VerticalStream:
    """All of the vertical stream; `row` gives its nodes, as activations, to the horizontal stream."""

    def __init__(self, network: Network, dtype: torch.dtype):
        self.dtype, self.filters = dtype, network.config.filters
        self.device = network.head.b.device
        self.input = RowConv(network.vertical_input, dtype)
        self.up = [[RowBlock(b, dtype) for b in level] for level in network.vertical_up]
        self.down = [[RowBlock(b, dtype) for b in level] for level in reversed(network.vertical_down)]
        self.shrink = [RowConv(layer, dtype) for layer in network.vertical_shrink]
        self.grow = [RowGrow(layer, dtype) for layer in reversed(network.vertical_grow)]
        self.coarse: list[Tensor | None] = [None] * LEVELS_OF_RESOLUTION  # last output of each level's down pass

    def row(self, i: int, above: Tensor | None, batch: int, width: int) -> tuple[list, list]:
        """The activations that the horizontal blocks of row ``i`` take in: per level, for the up and the down pass.

        ``above`` is row i - 1 of the input with its ones, (W, B, C + 1); None for the first row, whose input layer
        contributes zero, not its bias.
        """
        if above is None:
            x = torch.zeros(width, batch, self.filters, dtype=self.dtype, device=self.device)
        else:
            x = self.input.row(above)
        nodes: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.up]
        for k in active_levels(i):
            if k > 0:
                x = self.shrink[k - 1].row(x)
            node = (x, activate(x))
            nodes[k].append(node)
            for block in self.up[k]:
                node = block.row(node)
                nodes[k].append(node)
            x = node[0]
            if k < LEVELS_OF_RESOLUTION - 1 and i % 2 ** (k + 1):
                self.shrink[k].remember(x)  # an odd row of this level: the row above for the coarser level's next
        up = [[activated for _, activated in level[1:]] for level in nodes]
        return up, self._down_pass(i, nodes)

    def _down_pass(self, i: int, nodes: list) -> list[list[Tensor]]:
        given: list[list[Tensor]] = [[] for _ in self.up]
        for k in reversed(active_levels(i)):
            twins = nodes[k]
            if k == LEVELS_OF_RESOLUTION - 1:
                node = twins.pop()
            else:
                x = self.grow[k].row(self.coarse[k + 1], (i >> k) & 1)
                node = (x, activate(x))
            for block in self.down[k]:
                node = block.row(node, twins.pop()[1])
                given[k].append(node[1])
            self.coarse[k] = node[0]
        return given
