"""The incremental pass gives the parallel network's numbers, whatever the shape."""

import pytest
import torch
from nets import random_images, small_density

from pixeldefend.fingerprint import fingerprint
from pixeldefend.pixelcnn.incremental import PERIOD, Decoder, bytes_per_image
from pixeldefend.pixelcnn.logistic import scale_levels


def decoder(density, choose, images, **options):
    batch, _, height, width = images.shape
    return Decoder(density.network, choose, batch=batch, height=height, width=width, **options)


def follow(density, images, *, times=1, **options):
    """Decode by choosing the levels of ``images``; return the network's numbers at every position."""
    numbers = []

    def choose(parameters, levels):
        numbers.append(parameters.clone())
        return levels

    one = decoder(density, choose, images, **options)
    for _ in range(times):
        numbers.clear()
        assert torch.equal(one.run([images]), images)
    return torch.stack(numbers, -1).unflatten(-1, images.shape[2:])


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


def test_bfloat16_sees_every_level_rounded_once_as_the_parallel_pass_does():
    """Scaled in bfloat16 itself, level 130 would be half a level off."""
    density, images = small_density(1, 4, 64), torch.arange(256, dtype=torch.uint8).view(1, 1, 4, 64)
    one = decoder(density, lambda parameters, levels: levels, images, dtype=torch.bfloat16)
    one.run([images])
    for i in (2, 3):  # the last two rows
        assert torch.equal(one.pixels.own[i & 1][:, 0, 0], scale_levels(images[0, 0, i]).bfloat16())


@pytest.mark.parametrize(("channels", "width", "dtype"), [(1, 28, torch.float32), (3, 12, torch.bfloat16)])
def test_the_memory_for_an_image_is_known_without_a_decoder(channels, width, dtype):
    density = small_density(channels, 8, width)
    one = Decoder(density.network, lambda parameters: parameters, batch=5, height=8, width=width, dtype=dtype)
    assert bytes_per_image(density.network.config, width, dtype) == one.bytes_per_image


def test_a_decoder_forgets_the_batch_before():
    density = small_density(1)
    images = random_images(4, 1, 8, 8)
    assert torch.equal(follow(density, images), follow(density, images, times=2))


def test_numbers_are_given_before_the_pixel_is_chosen():
    """What `choose` is given belongs to its pixel, what it returns decides later numbers only, rows are reported."""
    density = small_density(1)
    images, seen, rows = random_images(2, 1, 8, 8), [], []

    def choose(parameters, levels):
        seen.append(levels.clone())
        return torch.zeros(2, 1, dtype=torch.uint8)

    canvas = decoder(density, choose, images).run([images], lambda: rows.append(len(seen)))
    assert torch.equal(torch.stack(seen, -1).unflatten(-1, (8, 8)), images)
    assert rows == [8 * (i + 1) for i in range(8)]
    assert not canvas.any()


def test_rows_are_recorded_once_for_each_kind(monkeypatch):
    """The recorded work of row i, replayed at rows i + 8, i + 16, ..., gives the parallel network's numbers."""
    density = small_density(1, 28, 28)
    images = random_images(2, 1, 28, 28)
    numbers = []

    def choose(parameters, levels):
        numbers.append(parameters.clone())
        return levels

    one = decoder(density, choose, images)
    recorded = {}

    def row(i):
        if i:  # the same work as the first row of its kind, whatever i is
            i = recorded.setdefault(i % PERIOD, i)
        one.compute_row(i)

    monkeypatch.setattr(one, "row", row)
    assert torch.equal(one.run([images]), images)
    with torch.no_grad():
        parallel = density.network(scale_levels(images))
    assert torch.allclose(torch.stack(numbers, -1).unflatten(-1, (28, 28)), parallel, rtol=1e-5, atol=1e-5)
    assert sorted(recorded) == list(range(PERIOD))
