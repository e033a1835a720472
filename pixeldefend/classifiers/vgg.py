"""The VGG network of appendix C.2 (Simonyan & Zisserman 2014): four blocks of convolutions and two dense layers.

The paper's table is followed where the authors' code differs:

- blocks of 2, 2, 3 and 3 convolutions with 16, 128, 512 and 512 maps (the code: 2, 2, 3, 3 and 3 with 64, 128, 256, 512
  and 512), so 12 layers with weights, although appendix B speaks of 16;
- convolution, batch normalisation, ReLU (the code applies a ReLU before the normalisation too).

What the table leaves open is taken from the code: dropout of one half and batch normalisation with epsilon 1e-3. Our own
are a moving average of 0.99, as in the residual network (the code's 0.999 lags behind in a run shorter than theirs),
convolutions without bias (the normalisation that follows has one) and the initial weights.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import CLASSES, check_count
from .standardise import standardise

BLOCKS = ((1, 2), (8, 2), (32, 3), (32, 3))  # feature maps in multiples of the width, number of convolutions
DENSE = 32  # units of the hidden dense layer, in multiples of the width
DROPOUT = 0.5


class Convolution(nn.Sequential):
    """A 3 x 3 convolution that keeps the size, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),  # TensorFlow calls this momentum 0.99
            nn.ReLU(inplace=True),
        )


class VGG(nn.Module):
    """From pixels in [0, 1], float32 (N, C, side, side), to logits (N, 10).

    Each block ends with 2 x 2 max pooling that drops an odd last row and column: 32, 16, 8, 4, 2 or 28, 14, 7, 3, 1.

    Args:
        channels: C of the images.
        width: feature maps of the first block; the paper has 16 for CIFAR-10 and 4 for Fashion-MNIST, with 13,615,866
            and 804,174 parameters.
        side: height and width of the images, at least 16.

    Raises ``TypeError`` or ``ValueError`` for other sizes, and ``ValueError`` for pixels of another shape.
    """

    def __init__(self, *, channels: int, width: int, side: int):
        super().__init__()
        for name, value in (("channels", channels), ("width", width), ("side", side)):
            check_count(value, name=name)
        if side < 2 ** len(BLOCKS):
            raise ValueError(f"side must be at least {2 ** len(BLOCKS)} for {len(BLOCKS)} poolings, not {side}")
        self.size = {"channels": channels, "width": width, "side": side}
        self.features = nn.Sequential()
        inputs = channels
        for multiple, count in BLOCKS:
            for _ in range(count):
                self.features.append(Convolution(inputs, multiple * width))
                inputs = multiple * width
            self.features.append(nn.MaxPool2d(2))
        self.hidden = nn.Linear(inputs * (side // 2 ** len(BLOCKS)) ** 2, DENSE * width)
        self.classify = nn.Linear(DENSE * width, CLASSES)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights that a ReLU follows from N(0, 2 / inputs) (He et al. 2015), the last ones from N(0, 1 / inputs).

        Biases start at zero, batch normalisations as the identity.
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                gain = 1 if module is self.classify else 2
                deviation = math.sqrt(gain / module.weight[0].numel())
                nn.init.normal_(module.weight, 0.0, deviation, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        expected = (self.size["channels"], self.size["side"], self.size["side"])
        if pixels.shape[1:] != expected:
            raise ValueError(f"this network classifies images of shape {expected}, not {tuple(pixels.shape[1:])}")
        h = self.features(standardise(pixels)).flatten(1)
        h = F.relu(self.hidden(F.dropout(h, DROPOUT, self.training)))
        return self.classify(F.dropout(h, DROPOUT, self.training))
