"""The vertical stream of the PixelCNN, one row of the image at a time: half of the incremental pass (see `incremental`)."""

import torch
from torch import Tensor

from .layers import GatedBlock, ShiftedConv, ShiftedTransposedConv
from .network import LEVELS_OF_RESOLUTION, Network
from .windows import Halves, Scratch, Space, Window, active_levels, halves, window_matrices


def product(bias: Tensor, matrix: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """``out[c] = bias + matrix @ x[c]`` for every column c of a row."""
    if x.is_cuda:
        return torch.baddbmm(bias, matrix.expand(len(x), *matrix.shape), x, out=out)
    for x_c, out_c in zip(x.unbind(), out.unbind(), strict=True):  # a batched product would copy overlapping windows
        torch.addmm(bias, matrix, x_c, out=out_c)
    return out


def add_product(matrix: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """``out[c] += matrix @ x[c]`` for every column c of a row."""
    return out.baddbmm_(matrix.expand(len(x), *matrix.shape), x)


class RowConv:
    """A down layer (2 x 3, stride 1 or 2): write the input row to ``own[slot]``, then ask for `row`."""

    def __init__(self, layer: ShiftedConv, space: Space, width: int):
        self.matrices, self.bias = window_matrices(layer, space), space.bias(layer)
        self.window = Window(space, width, layer.v.shape[1], columns=3, stride=layer.stride)
        self.own = [halves(row) for row in self.window.own]

    def row(self, slot: int, out: Tensor) -> Tensor:
        return product(self.bias, self.matrices[slot], self.window.seen, out)


class RowBlock:
    """A gated block of the vertical stream; the activation of its input is written to ``own[slot]`` beforehand."""

    def __init__(self, block: GatedBlock, space: Space, width: int):
        self.conv_in, self.conv_out = RowConv(block.conv_in, space, width), RowConv(block.conv_out, space, width)
        self.own = self.conv_in.own
        if block.skip is not None:
            self.skip = space.weight(block.skip.weight().flatten(1))
            self.conv_in.bias = self.conv_in.bias + space.bias(block.skip)

    def row(self, x: Tensor, slot: int, scratch: Scratch, skip: Tensor | None = None) -> None:
        """Update ``x`` (W, F, B), the block's input, in place to its output."""
        h = self.conv_in.row(slot, scratch.h)
        if skip is not None:
            add_product(self.skip, skip, h)
        scratch.activate(h, self.conv_out.own[slot])
        self.conv_out.row(slot, scratch.output.whole)
        scratch.add_gated(x)


class RowGrow:
    """The vertical stream's transposed convolution (2 x 3, stride 2): one coarse row gives two fine ones.

    An even column of the fine row sees one coarse column, an odd one sees two: as one product, (own, next) to (even, odd).
    """

    def __init__(self, layer: ShiftedTransposedConv, space: Space):
        weight = layer.weight().transpose(0, 1)  # (outputs, inputs, 2, 3)
        self.matrices = []
        for row in (0, 1):
            after, own, before = weight[:, :, row].unbind(-1)
            even_odd = torch.cat([torch.cat([own, torch.zeros_like(own)], 1), torch.cat([before, after], 1)])
            self.matrices.append(space.weight(even_odd))
        self.bias = space.bias(layer).repeat(2, 1)

    def row(self, coarse: Tensor, slot: int, out: Tensor) -> None:
        """``coarse`` (W / 2 + 1, F, B), its last column zero; ``out`` (W, F, B)."""
        width, features, batch = coarse.shape
        pairs = coarse.as_strided((width - 1, 2 * features, batch), coarse.stride())
        product(self.bias, self.matrices[slot], pairs, out.view(width - 1, 2 * features, batch))


class VerticalStream:
    """All of the vertical stream. After `row`, ``up[k]`` and ``down[k]`` of `given` are what the horizontal blocks take."""

    def __init__(self, network: Network, space: Space):
        widths = [space.width >> k for k in range(LEVELS_OF_RESOLUTION)]
        features = space.filters

        def blocks(levels) -> list[list[RowBlock]]:
            return [[RowBlock(b, space, width) for b in level] for level, width in zip(levels, widths, strict=True)]

        self.up, self.down = blocks(network.vertical_up), blocks(reversed(network.vertical_down))
        self.shrink = [RowConv(layer, space, w) for layer, w in zip(network.vertical_shrink, widths, strict=False)]
        self.grow = [RowGrow(layer, space) for layer in reversed(network.vertical_grow)]
        self.x = [space.zeros(width + 1, features) for width in widths]  # the zero column is for `RowGrow`
        self.ends = [[halves(space.zeros(w, 2 * features)) for _ in range(2)] for w in widths]
        scratch = Scratch(space, space.width)
        self.scratch = [scratch.first(width) for width in widths]

    def windows(self) -> list[Window]:
        blocks = [block for level in self.up + self.down for block in level]
        return [conv.window for block in blocks for conv in (block.conv_in, block.conv_out)] + [
            layer.window for layer in self.shrink
        ]

    def input(self) -> Tensor:
        """The output of the stream's input layer, (W, F, B), to be written before `row`."""
        return self.x[0][:-1]

    def row(self, i: int) -> list[tuple[list[Tensor], list[Tensor]]]:
        """Compute row ``i``; for every active level the activations that the horizontal blocks take in, up and down.

        They are views of buffers that the next row overwrites.
        """
        nodes = [self._up_pass(i, k) for k in active_levels(i)]
        given = [self._down_pass(i, k, nodes[k]) for k in reversed(active_levels(i))]
        return [([node.whole for node in up[1:]], down) for up, down in zip(nodes, reversed(given), strict=True)]

    def _up_pass(self, i: int, k: int) -> list[Halves]:
        slot, x, scratch, blocks = (i >> k) & 1, self.x[k][:-1], self.scratch[k], self.up[k]
        if k > 0:
            self.shrink[k - 1].row(0, x)
        last = self.down[k][0].own[slot] if k == LEVELS_OF_RESOLUTION - 1 else self.ends[k][0]
        nodes = [block.own[slot] for block in blocks] + [last]
        scratch.activate(x, nodes[0])
        for block, node in zip(blocks, nodes[1:], strict=True):
            block.row(x, slot, scratch)
            scratch.activate(x, node)
        if k < LEVELS_OF_RESOLUTION - 1:
            self.shrink[k].own[slot].whole.copy_(x)
        return nodes

    def _down_pass(self, i: int, k: int, nodes: list[Halves]) -> list[Tensor]:
        slot, x, scratch, blocks = (i >> k) & 1, self.x[k][:-1], self.scratch[k], self.down[k]
        twins = list(nodes)
        if k == LEVELS_OF_RESOLUTION - 1:
            twins.pop()  # the coarsest level goes on from its last node
        else:
            self.grow[k].row(self.x[k + 1], slot, x)
            scratch.activate(x, blocks[0].own[slot])
        given = [block.own[slot] for block in blocks[1:]] + [self.ends[k][1]]
        for block, node in zip(blocks, given, strict=True):
            block.row(x, slot, scratch, twins.pop().whole)
            scratch.activate(x, node)
        return [node.whole for node in given]
