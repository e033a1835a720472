"""The incremental pass gives the parallel network's numbers, whatever the shape."""

import pytest
import torch
from nets import random_images, small_density

from pixeldefend.fingerprint import fingerprint
from pixeldefend.pixelcnn.incremental import decode
from pixeldefend.pixelcnn.logistic import scale_levels


def follow(density, images, *, dtype=torch.float32):
    """Decode by choosing the levels of ``images``; return the network's numbers at every position."""
    numbers = torch.full((len(images), density.network.config.outputs, *images.shape[2:]), torch.nan)

    def choose(parameters, i, j):
        numbers[:, :, i, j] = parameters
        return images[:, :, i, j]

    canvas = decode(density.network, torch.zeros_like(images), choose, dtype=dtype)
    assert torch.equal(canvas, images)
    return numbers


@pytest.mark.parametrize(
    ("channels", "batch", "height", "width", "blocks"),
    [(1, 3, 8, 8, 1), (1, 1, 4, 4, 2), (1, 2, 12, 8, 1), (3, 5, 8, 12, 1), (3, 1, 16, 4, 2), (1, 7, 28, 28, 1)],
)
def test_incremental_equals_parallel(channels, batch, height, width, blocks):
    density = small_density(channels, height, width, blocks=blocks)
    images = random_images(batch, channels, height, width, seed=7)
    with torch.no_grad():
        parallel = density.network(scale_levels(images))
    before = fingerprint(density)
    assert torch.allclose(follow(density, images), parallel, rtol=1e-5, atol=1e-5)
    assert fingerprint(density) == before, "decoding must leave the weights alone"


def test_bfloat16_stays_near_float32():
    density = small_density(1)
    images = random_images(4, 1, 8, 8)
    exact, rounded = follow(density, images), follow(density, images, dtype=torch.bfloat16)
    assert 0 < (exact - rounded).abs().max() < 0.2 * exact.abs().max()


def test_numbers_are_given_before_the_pixel_is_chosen():
    """What `choose` returns decides later numbers only, and rows are reported one by one."""
    density = small_density(1)
    seen, rows = [], []

    def choose(parameters, i, j):
        seen.append((i, j))
        return torch.zeros(2, 1, dtype=torch.uint8)

    decode(density.network, random_images(2, 1, 8, 8), choose, on_row=lambda: rows.append(len(seen)))
    assert seen == [(i, j) for i in range(8) for j in range(8)]
    assert rows == [8 * (i + 1) for i in range(8)]
