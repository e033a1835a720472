"""Small random networks for tests: real ones, only small, with weights large enough that no test passes by vanishing."""

import torch

from pixeldefend import PixelCNN
from pixeldefend.pixelcnn.logistic import scale_levels
from pixeldefend.pixelcnn.network import initialise_from_data


def random_images(n: int, channels: int, height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


def small_density(channels: int, height: int = 8, width: int = 8, *, filters: int = 6, blocks: int = 1,
                  mixtures: int = 3, seed: int = 0) -> PixelCNN:
    """A random density, initialised on noise, with random biases so that a forgotten bias cannot hide."""
    generator = torch.Generator().manual_seed(seed)
    density = PixelCNN(channels=channels, height=height, width=width, filters=filters, blocks=blocks,
                       mixtures=mixtures, dropout=0.0)
    density.network.reset_parameters(generator)
    initialise_from_data(density.network, scale_levels(random_images(8, channels, 16, 16, seed=seed)))
    with torch.no_grad():
        for layer in density.network.normalised_layers():
            layer.b.add_(0.3 * torch.randn(layer.b.shape, generator=generator))
    return density
