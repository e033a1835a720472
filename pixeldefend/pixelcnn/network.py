"""The two-stream gated PixelCNN++ (Salimans et al. 2017), all positions in parallel.

Architecture as in the authors' code: three resolutions, ``blocks`` gated blocks per level and stream, 160 filters for
CIFAR-10 and 40 for Fashion-MNIST (appendix B: "reduced to 1/4"). The *vertical* stream at (i, j) sees the rows above i;
the *horizontal* stream sees row i left of j as well and is fed by the vertical one. The paper says that the
logistic-mixture output was replaced by a softmax; the released code turns the mixture into 256 bin masses per sub-pixel,
and that is followed here (see `logistic`).

One departure in form, none in function: where a block takes two skips, their activations are stacked as
[elu(a), elu(-a), elu(b), elu(-b)], so that each node's activation is computed once; the authors' order of these input
channels differs.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import EAGER, Elementwise, GatedBlock, ShiftedConv, ShiftedTransposedConv, WeightNormLayer

LEVELS_OF_RESOLUTION = 3


@dataclass(frozen=True)
class PixelCNNConfig:
    """Size of a PixelCNN. ``channels`` 1 or 3; ``filters`` 40 (Fashion-MNIST) or 160 (CIFAR-10) in the paper."""

    channels: int
    filters: int = 160
    blocks: int = 5  # gated blocks per level and stream
    mixtures: int = 10  # logistic components per sub-pixel
    dropout: float = 0.5  # in training only

    def __post_init__(self):
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        for name in ("filters", "blocks", "mixtures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout}")

    @property
    def outputs(self) -> int:
        """Numbers per pixel: weights, means, log-scales, and the coefficients that tie green to red, blue to both."""
        coefficients = self.channels * (self.channels - 1) // 2
        return self.mixtures * (1 + 2 * self.channels + coefficients)

    def as_dict(self) -> dict:
        return asdict(self)


class Network(nn.Module):
    """From pixels scaled to [-1, 1], (N, C, H, W), to mixture parameters, (N, outputs, H, W); H and W multiples of 4."""

    def __init__(self, config: PixelCNNConfig):
        super().__init__()
        self.config = config
        self.elementwise = EAGER
        f, inputs = config.filters, config.channels + 1  # the input carries a channel of ones, which marks the border
        self.vertical_input = ShiftedConv(inputs, f, (2, 3))
        self.horizontal_input_above = ShiftedConv(inputs, f, (1, 3))
        self.horizontal_input_left = ShiftedConv(inputs, f, (2, 1), right=True)

        def level(count: int, *, right: bool, skips: int) -> nn.ModuleList:
            return nn.ModuleList(
                GatedBlock(f, right=right, skips=skips, dropout=config.dropout) for _ in range(count)
            )

        up = [config.blocks] * LEVELS_OF_RESOLUTION
        down = [config.blocks] + [config.blocks + 1] * (LEVELS_OF_RESOLUTION - 1)  # consumes every node of the up pass
        self.vertical_up = nn.ModuleList(level(n, right=False, skips=0) for n in up)
        self.horizontal_up = nn.ModuleList(level(n, right=True, skips=1) for n in up)
        self.vertical_down = nn.ModuleList(level(n, right=False, skips=1) for n in down)
        self.horizontal_down = nn.ModuleList(level(n, right=True, skips=2) for n in down)
        between = range(LEVELS_OF_RESOLUTION - 1)
        self.vertical_shrink = nn.ModuleList(ShiftedConv(f, f, (2, 3), stride=2) for _ in between)
        self.horizontal_shrink = nn.ModuleList(ShiftedConv(f, f, (2, 2), right=True, stride=2) for _ in between)
        self.vertical_grow = nn.ModuleList(ShiftedTransposedConv(f, f, (2, 3)) for _ in between)
        self.horizontal_grow = nn.ModuleList(ShiftedTransposedConv(f, f, (2, 2), right=True) for _ in between)
        self.head = ShiftedConv(f, config.outputs, (1, 1))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw every V from N(0, 0.05^2), set g = 1 and b = 0. The generator's device need not be the network's."""
        for layer in self.normalised_layers():
            drawn = torch.empty(layer.v.shape, dtype=layer.v.dtype, device=generator.device)
            with torch.no_grad():
                layer.v.copy_(nn.init.normal_(drawn, 0.0, 0.05, generator=generator))
            nn.init.ones_(layer.g)
            nn.init.zeros_(layer.b)

    def normalised_layers(self) -> list[WeightNormLayer]:
        return [module for module in self.modules() if isinstance(module, WeightNormLayer)]

    def hidden_layers(self) -> list[WeightNormLayer]:
        """All but those that see the pixels and the one that gives the outputs."""
        outer = (self.vertical_input, self.horizontal_input_above, self.horizontal_input_left, self.head)
        return [layer for layer in self.normalised_layers() if layer not in outer]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        u = self._node(shift_down(self.vertical_input(x)))
        h = self._node(shift_down(self.horizontal_input_above(x)) + shift_right(self.horizontal_input_left(x)))
        nodes = [(u, h)]
        for k in range(LEVELS_OF_RESOLUTION):
            for vertical, horizontal in zip(self.vertical_up[k], self.horizontal_up[k], strict=True):
                u = vertical(*u)
                h = horizontal(*h, u[1])
                nodes.append((u, h))
            if k < LEVELS_OF_RESOLUTION - 1:
                u, h = self._node(self.vertical_shrink[k](u[0])), self._node(self.horizontal_shrink[k](h[0]))
                nodes.append((u, h))
        nodes.pop()
        for k in range(LEVELS_OF_RESOLUTION):
            for vertical, horizontal in zip(self.vertical_down[k], self.horizontal_down[k], strict=True):
                u_twin, h_twin = nodes.pop()
                u = vertical(*u, u_twin[1])
                h = horizontal(*h, u[1], h_twin[1])
            if k < LEVELS_OF_RESOLUTION - 1:
                u, h = self._node(self.vertical_grow[k](u[0])), self._node(self.horizontal_grow[k](h[0]))
        return self.head(F.elu(h[0]))

    def use(self, elementwise: Elementwise) -> None:
        """Evaluate everything between the convolutions with these functions, for example compiled ones."""
        for module in self.modules():
            if isinstance(module, Network | GatedBlock):
                module.elementwise = elementwise

    def _node(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.elementwise.concat_elu(x)


def shift_down(x: Tensor) -> Tensor:
    """Row i becomes row i + 1; row 0 becomes zero, bias included."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Tensor) -> Tensor:
    """Column j becomes column j + 1; column 0 becomes zero, bias included."""
    return F.pad(x, (1, 0))[:, :, :, :-1]


@torch.no_grad()
def initialise_from_data(network: Network, x: Tensor) -> None:
    """Data-dependent initialisation (Salimans & Kingma 2016): set g and b so that every layer's outputs on the batch
    ``x`` (scaled to [-1, 1]) have mean zero and standard deviation ``init_scale``."""

    def set_scale_and_bias(layer: WeightNormLayer, inputs: tuple[Tensor]) -> None:
        layer.g.fill_(1.0)
        layer.b.zero_()
        y = layer.forward(inputs[0])
        std, mean = torch.std_mean(y, dim=(0, 2, 3), correction=0)
        scale = layer.init_scale / torch.sqrt(std.square() + 1e-8)
        layer.g.copy_(scale)
        layer.b.copy_(-mean * scale)

    hooks = [layer.register_forward_pre_hook(set_scale_and_bias) for layer in network.normalised_layers()]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
