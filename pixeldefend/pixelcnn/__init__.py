"""The density: network, 256-way head, incremental evaluation, training."""

from .model import PixelCNN, shipped_densities

__all__ = ["PixelCNN", "shipped_densities"]
