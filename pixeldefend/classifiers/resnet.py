"""The residual network of appendix C.1: pre-activation units (He et al. 2016), three stages of ten.

The paper's table has 10 units per stage (62 layers); the authors' code builds 5 (32 layers). The paper is followed.
What the table leaves open is taken from the code: leaky ReLU of slope 0.1, batch normalisation with epsilon 1e-3 and a
moving average of 0.99, convolutions without bias, and the first unit's activation shared with its shortcut. Two things
are our own: strided convolutions pad one pixel on every side (TensorFlow's pad right and bottom only), and the initial
weights of the last layer.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import CLASSES, check_count
from .standardise import standardise

SLOPE = 0.1  # of the leaky ReLU below zero
SIDES = 4  # H and W are multiples of it: two stages halve them


class Activation(nn.BatchNorm2d):
    """Batch normalisation, then leaky ReLU."""

    def __init__(self, maps: int):
        super().__init__(maps, eps=1e-3, momentum=0.01)  # TensorFlow calls this momentum 0.99

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), SLOPE, inplace=True)


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class ResidualUnit(nn.Module):
    """``shortcut(x) + conv(act(conv(act(x))))``.

    Where ``stride`` or the number of maps changes, the shortcut is average-pooled and padded with zero maps, half of
    them before and half after. ``shared_activation`` feeds the shortcut from ``act(x)`` instead of ``x``.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, shared_activation: bool = False):
        super().__init__()
        self.stride, self.shared_activation = stride, shared_activation
        extra = outputs - inputs
        self.zero_maps = (extra // 2, extra - extra // 2)
        self.activation_1 = Activation(inputs)
        self.convolution_1 = convolution(inputs, outputs, stride)
        self.activation_2 = Activation(outputs)
        self.convolution_2 = convolution(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation_1(x)
        h = self.convolution_2(self.activation_2(self.convolution_1(activated)))
        return self._shortcut(activated if self.shared_activation else x) + h

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        return F.pad(x, (0, 0, 0, 0, *self.zero_maps)) if any(self.zero_maps) else x


class ResNet(nn.Module):
    """From pixels in [0, 1], float32 (N, C, H, W), to logits (N, 10); H and W multiples of 4.

    Args:
        channels: C of the images.
        width: feature maps of the first stage (the next have 2 and 4 times as many); the paper has 16 for CIFAR-10 and
            4 for Fashion-MNIST, with 950,234 and 60,374 parameters.
        units: residual units per stage; 10 make the paper's 62 layers.

    Raises ``TypeError`` or ``ValueError`` for other sizes, and ``ValueError`` for pixels of another shape.
    """

    def __init__(self, *, channels: int, width: int, units: int = 10):
        super().__init__()
        for name, value in (("channels", channels), ("width", width), ("units", units)):
            check_count(value, name=name)
        self.size = {"channels": channels, "width": width, "units": units}
        self.first = convolution(channels, width)
        self.units = nn.Sequential()
        inputs = width
        for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for unit in range(units):
                self.units.append(
                    ResidualUnit(
                        inputs,
                        outputs,
                        stride=1 if unit else stride,
                        shared_activation=not len(self.units),
                    )
                )
                inputs = outputs
        self.last_activation = Activation(inputs)
        self.classify = nn.Linear(inputs, CLASSES)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw convolutions from N(0, 2 / (9 outputs)), as the authors, and the last layer from N(0, 1 / inputs)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / (9 * module.out_channels)), generator=generator)
            elif isinstance(module, Activation):
                module.reset_parameters()
        nn.init.normal_(self.classify.weight, 0.0, self.classify.in_features**-0.5, generator=generator)
        nn.init.zeros_(self.classify.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        channels, shape = self.size["channels"], tuple(pixels.shape[1:])
        if len(shape) != 3 or shape[0] != channels or shape[1] % SIDES or shape[2] % SIDES:
            expected = f"({channels}, H, W), H and W multiples of {SIDES}"
            raise ValueError(f"this network classifies images of shape {expected}, not {shape}")
        h = self.units(self.first(standardise(pixels)))
        return self.classify(self.last_activation(h).mean(dim=(2, 3)))
