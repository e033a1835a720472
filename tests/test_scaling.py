"""Between levels and the unit interval: nothing is lost, and halves of a level go to the nearest."""

import math

import pytest
import torch

from pixeldefend.scaling import from_unit, to_unit

LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_every_level_survives_the_round_trip():
    unit = to_unit(LEVELS)
    assert unit.dtype == torch.float32 and unit.min() == 0 and unit.max() == 1
    assert torch.equal(from_unit(unit), LEVELS)
    assert torch.equal(from_unit(unit.double()), LEVELS)


@pytest.mark.parametrize("shift", [-0.49, 0.49])
def test_from_unit_rounds_to_the_nearest_level(shift):
    assert torch.equal(from_unit((LEVELS.double() + shift) / 255), LEVELS)


BAD_PIXELS = {
    "integers": (LEVELS, TypeError, "uint8"),
    "a number": (0.5, TypeError, "float"),
    "three axes": (torch.zeros(1, 2, 2), ValueError, "(1, 2, 2)"),
    "NaN": (torch.full((1, 1, 1, 1), math.nan), ValueError, "nan"),
    "above": (torch.full((1, 1, 1, 1), 1.01), ValueError, "1.01"),
    "below": (torch.full((1, 1, 1, 1), -0.01), ValueError, "-0.01"),
}


@pytest.mark.parametrize("pixels, kind, mention", BAD_PIXELS.values(), ids=BAD_PIXELS)
def test_from_unit_refuses(pixels, kind, mention):
    with pytest.raises(kind) as caught:
        from_unit(pixels)
    assert mention in str(caught.value)


@pytest.mark.parametrize("images, kind", [(LEVELS.float(), TypeError), (LEVELS[0], ValueError)], ids=["floats", "3 axes"])
def test_to_unit_refuses(images, kind):
    with pytest.raises(kind):
        to_unit(images)
