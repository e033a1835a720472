"""The PixelCNN evaluated pixel by pixel, every activation computed once.

Decoding (sampling, or the greedy purification of algorithm 1) needs the network's answer at every pixel after the pixels
before it have been chosen. Done naively that is one forward pass per pixel; here it is about the arithmetic of one
forward pass in all, the idea of Ramachandran et al. (2017), which the paper adopts (section 4.1):

* the vertical stream of row i depends on earlier rows only: it is computed a whole row at a time;
* in the horizontal stream, what comes from the vertical one is computed for a whole row; per pixel remain two matrix
  products for each block (a third one on the way down), on buffers that hold all they need in one piece (see `windows`);
* the half and quarter resolutions run on every second and fourth row and column only.

What is remembered per layer is two rows, so memory grows with the batch and the width only. On a GPU the work of a row is
recorded once and replayed (`RowGraphs`), as each of its thousands of steps is too short to be started from Python.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import GatedBlock
from .logistic import scale_levels
from .network import LEVELS_OF_RESOLUTION, Network, PixelCNNConfig
from .precision import full_products
from .rows import VerticalStream, product
from .windows import Halves, Scratch, Space, Window, active_levels, halves, window_matrices

# choose(parameters, *given) -> levels: from the network's numbers for one pixel, float32 (B, outputs), and what was given
# for it, each (B, C), to the levels of its channels, (B, C). It must only compute: on a GPU it is recorded and replayed.
Choose = Callable[..., Tensor]
PERIOD = 2**LEVELS_OF_RESOLUTION  # rows i and i + PERIOD do the same work on the same buffers


class PixelBlock:
    """A gated block of the horizontal stream; the activation of its input is written to ``own[slot]`` beforehand."""

    def __init__(self, block: GatedBlock, space: Space, width: int):
        features = space.filters
        windows = [Window(space, width, 2 * features, columns=2) for _ in range(2)]
        self.windows = windows
        self.own, self.own_out = ([[halves(x) for x in row] for row in window.own] for window in windows)
        self.seen, self.seen_out = (window.seen.unbind() for window in windows)
        self.matrices, self.matrices_out = (window_matrices(layer, space) for layer in (block.conv_in, block.conv_out))
        skip = block.skip.weight().flatten(1)
        self.from_vertical = space.weight(skip[:, : 2 * features])
        self.from_twin = space.weight(skip[:, 2 * features :])
        self.bias = space.bias(block.conv_in) + space.bias(block.skip)
        self.bias_out = space.bias(block.conv_out)
        self.base = space.zeros(width, features)
        self.h = self.base.unbind()

    def start_row(self, vertical: Tensor) -> None:
        """``vertical`` (W, 2F, B) is the activation of the vertical stream's block at the same depth."""
        product(self.bias, self.from_vertical, vertical, self.base)

    def pixel(self, x: Tensor, c: int, slot: int, scratch: Scratch, twin: Tensor | None = None) -> None:
        """Update ``x`` (F, B), the block's input in column ``c``, in place to its output."""
        h = self.h[c].addmm_(self.matrices[slot], self.seen[c])
        if twin is not None:
            h.addmm_(self.from_twin, twin)
        scratch.activate(h, self.own_out[slot][c])
        torch.addmm(self.bias_out, self.matrices_out[slot], self.seen_out[c], out=scratch.output.whole)
        scratch.add_gated(x)


class HorizontalStream:
    """All of the horizontal stream and the head: `start_row`, then `pixel` for each column."""

    def __init__(self, network: Network, space: Space):
        widths = [space.width >> k for k in range(LEVELS_OF_RESOLUTION)]
        features = space.filters

        def blocks(levels) -> list[list[PixelBlock]]:
            return [[PixelBlock(b, space, width) for b in level] for level, width in zip(levels, widths, strict=True)]

        self.up, self.down = blocks(network.horizontal_up), blocks(reversed(network.horizontal_down))
        self.shrink_windows = [Window(space, w, features, columns=2, stride=2) for w in widths[:-1]]
        self.shrink_own = [[row.unbind() for row in window.own] for window in self.shrink_windows]
        self.shrink_seen = [window.seen.unbind() for window in self.shrink_windows]
        self.shrink = [(space.bias(layer), window_matrices(layer, space)[0]) for layer in network.horizontal_shrink]
        self.grow = [
            (space.bias(layer), [[space.weight(layer.weight()[:, :, r, c].t()) for c in (0, 1)] for r in (0, 1)])
            for layer in reversed(network.horizontal_grow)
        ]
        self.rows = [space.zeros(width, features) for width in widths]
        self.x = [row.unbind() for row in self.rows]
        self.last = [halves(space.zeros(2 * features)) for _ in widths]  # activation of a level's last node on the way up
        self.scratch = Scratch(space)
        self.head = network.head.weight().detach().flatten(1).float()
        self.head_bias = network.head.b.detach().float()[:, None]

    def windows(self) -> list[Window]:
        blocks = [block for level in self.up + self.down for block in level]
        return [window for block in blocks for window in block.windows] + self.shrink_windows

    def input(self) -> Tensor:
        """The output of the stream's input layers, (W, F, B), each column to be written before its `pixel`."""
        return self.rows[0]

    def start_row(self, given: list[tuple[list[Tensor], list[Tensor]]]) -> None:
        """``given`` is what `VerticalStream.row` returns."""
        for k, (up, down) in enumerate(given):
            for block, vertical in zip(self.up[k] + self.down[k], up + down, strict=True):
                block.start_row(vertical)

    def pixel(self, i: int, j: int) -> Tensor:
        """The network's numbers for pixel (i, j), float32 (outputs, B)."""
        active = [k for k in active_levels(j) if k in active_levels(i)]
        nodes = [self._up_pass(i, j, k) for k in active]
        for k in reversed(active):
            self._down_pass(i, j, k, nodes[k])
        return torch.addmm(self.head_bias, self.head, F.elu(self.x[0][j].float()))

    def _up_pass(self, i: int, j: int, k: int) -> list[Halves]:
        c, slot, blocks, scratch = j >> k, (i >> k) & 1, self.up[k], self.scratch
        x = self.x[k][c]
        if k > 0:
            bias, matrix = self.shrink[k - 1]
            torch.addmm(bias, matrix, self.shrink_seen[k - 1][c], out=x)
        last = self.down[k][0].own[slot][c] if k == LEVELS_OF_RESOLUTION - 1 else self.last[k]
        nodes = [block.own[slot][c] for block in blocks] + [last]
        scratch.activate(x, nodes[0])
        for block, node in zip(blocks, nodes[1:], strict=True):
            block.pixel(x, c, slot, scratch)
            scratch.activate(x, node)
        if k < LEVELS_OF_RESOLUTION - 1:
            self.shrink_own[k][slot][c].copy_(x)
        return nodes

    def _down_pass(self, i: int, j: int, k: int, twins: list[Halves]) -> None:
        c, slot, blocks, scratch = j >> k, (i >> k) & 1, self.down[k], self.scratch
        x = self.x[k][c]
        if k == LEVELS_OF_RESOLUTION - 1:
            twins.pop()  # the coarsest level goes on from its last node
        else:
            bias, matrices = self.grow[k]
            torch.addmm(bias, matrices[slot][c & 1], self.x[k + 1][c >> 1], out=x)
            scratch.activate(x, blocks[0].own[slot][c])
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            block.pixel(x, c, slot, scratch, twins.pop().whole)
            if following is not None:
                scratch.activate(x, following.own[slot][c])


class Decoder:
    """Decodes batches of one size with one ``choose``: ``decoder.run(given)``; see `decode`."""

    @torch.no_grad()
    def __init__(self, network: Network, choose: Choose, *, batch: int, height: int, width: int,
                 dtype: torch.dtype = torch.float32):
        device, channels = network.head.b.device, network.config.channels
        space = Space(batch, width, network.config.filters, dtype, device)
        self.choose, self.height = choose, height
        self.vertical, self.horizontal = VerticalStream(network, space), HorizontalStream(network, space)
        # the image's last two rows, scaled, and a channel of ones
        self.pixels = Window(space, width, channels + 1, columns=3)
        self.pixels_before = self.pixels.data[:width].flatten(1, 2).unbind()  # the column to the left, both rows
        above = ((network.vertical_input, self.vertical), (network.horizontal_input_above, self.horizontal))
        self.from_above = [(space.bias(layer), window_matrices(layer, space), stream.input()) for layer, stream in above]
        self.left_bias = space.bias(network.horizontal_input_left)
        self.left = window_matrices(network.horizontal_input_left, space)
        self.chosen = torch.zeros(width, channels, batch, dtype=torch.uint8, device=device)
        self.given: list[Tensor] = []
        self.bytes_per_image = space.bytes // batch
        self.row = RowGraphs(self).row if device.type == "cuda" else self.compute_row

    @torch.no_grad()
    def run(self, given: Sequence[Tensor] = (), on_row: Callable[[], None] | None = None) -> Tensor:
        """A batch of images, uint8 (B, C, H, W); ``given`` are tensors (B, C, H, W) for `Choose`."""
        given = [value.permute(2, 3, 1, 0).contiguous() for value in given]
        if not self.given:  # the same buffers in every call: a recorded row reads them
            self.given = [torch.empty_like(value[0]) for value in given]
        for window in [self.pixels, *self.vertical.windows(), *self.horizontal.windows()]:
            window.clear()
        rows = []
        for i in range(self.height):
            for buffer, value in zip(self.given, given, strict=True):
                buffer.copy_(value[i])
            with full_products(self.chosen.device):
                self.row(i)
            rows.append(self.chosen.clone())
            if on_row is not None:
                on_row()
        return torch.stack(rows).permute(3, 2, 0, 1).contiguous()

    def compute_row(self, i: int) -> None:
        """Decode row ``i`` into ``self.chosen``, (W, C, B)."""
        slot = i & 1
        self._start_row(i, slot)
        x, own = self.horizontal.input(), self.pixels.own[slot]
        for j, levels in enumerate(self.chosen):
            x[j].addmm_(self.left[slot], self.pixels_before[j])
            parameters = self.horizontal.pixel(i, j)
            levels.copy_(self.choose(parameters.t(), *(value[j].t() for value in self.given)).t())
            own[j, :-1].copy_(scale_levels(levels))  # rounded once if the buffer is bfloat16, as by the parallel pass

    def _start_row(self, i: int, slot: int) -> None:
        """Everything in row ``i`` that earlier rows decide. Shifted-in rows and columns are zero, bias included."""
        for bias, matrices, out in self.from_above:
            if i == 0:
                out.zero_()
            else:  # row i - 1 is the own row of these layers
                product(bias, matrices[1 - slot], self.pixels.seen, out)
        self.horizontal.input()[1:] += self.left_bias
        self.pixels.own[slot][:, -1] = 1.0
        self.horizontal.start_row(self.vertical.row(i))


class RowGraphs:
    """The work of a row as CUDA graphs, one for each kind of row, recorded when the kind first comes up."""

    def __init__(self, decoder: Decoder):
        self.decoder, self.graphs = decoder, {}
        self.device = decoder.chosen.device  # need not be the current one, which is what a recording is on if left to itself
        with torch.cuda.device(self.device):
            self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def row(self, i: int) -> None:
        if i == 0:  # differs from all others; run as it is, it also starts what must not start in a recording
            self.decoder.compute_row(0)
            return
        kind = i % PERIOD
        with torch.cuda.device(self.device):
            if kind not in self.graphs:
                self.graphs[kind] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graphs[kind], pool=self.pool, stream=self.stream):
                    self.decoder.compute_row(i)
            self.graphs[kind].replay()


@lru_cache
def bytes_per_image(config: PixelCNNConfig, width: int, dtype: torch.dtype) -> int:
    """Memory that a `Decoder` of such a network keeps for each image of its batch."""
    with torch.device("meta"):
        network = Network(config)
    return Decoder(network, lambda parameters: parameters, batch=1, height=4, width=width, dtype=dtype).bytes_per_image
