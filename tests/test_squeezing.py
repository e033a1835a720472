"""Feature squeezing: colours and median by hand, what it must leave alone, and bad input."""

import pytest
import torch
from nets import random_images

import pixeldefend as pxd
from pixeldefend import squeeze
from pixeldefend.defenses.squeezing import MedianFiltered, median_2x2, quantise


def image(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.uint8)[None, None]


NINE = image([9, 1, 5], [3, 7, 2], [8, 4, 6])


def test_median_by_hand():
    """Row -1 is row 1, column -1 is column 1; the second-largest of four."""
    expected = image(
        [7, 7, 5],  # 9 7 3 1 has corner 7, row 1, column 1: {9, 3, 1, 7}; {1, 7, 9, 3}; {5, 2, 1, 7}
        [7, 7, 5],  # {3, 9, 7, 1}; {7, 1, 3, 9}; {2, 5, 7, 1}
        [7, 7, 6],  # {8, 3, 4, 7}; {4, 7, 8, 3}; {6, 2, 4, 7}
    )
    assert torch.equal(median_2x2(NINE), expected)


def test_median_element_by_element():
    images = random_images(2, 3, 6, 5)
    out = median_2x2(images)
    for n, c, i, j in [(n, c, i, j) for n in range(2) for c in range(3) for i in range(6) for j in range(5)]:
        window = [int(images[n, c, abs(a), abs(b)]) for a in (i, i - 1) for b in (j, j - 1)]
        assert out[n, c, i, j] == sorted(window)[2]


@pytest.mark.parametrize("levels, colours", [
    (2, [0, 255]), (3, [0, 128, 255]), (6, [0, 51, 102, 153, 204, 255]), (8, [0, 36, 73, 109, 146, 182, 219, 255]),
])
def test_where_the_colours_sit(levels, colours):
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    out = quantise(ramp, levels)
    assert out.dtype == torch.uint8
    assert out.unique().tolist() == colours
    nearest = (ramp.double() * (levels - 1) / 255).round() * 255 / (levels - 1)
    assert (out - nearest).abs().max() <= 0.5
    assert (out.int() - ramp.int()).abs().max() <= 255 / (levels - 1) / 2 + 0.5


@pytest.mark.parametrize("levels", range(2, 257))
def test_quantising_again_changes_nothing(levels):
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    once = quantise(ramp, levels)
    assert torch.equal(quantise(once, levels), once)
    assert len(once.unique()) == levels
    assert (once.view(-1).int().diff() >= 0).all()


def test_256_levels_are_all_of_them():
    images = random_images(2, 1, 5, 5)
    assert torch.equal(squeeze(images, levels=256), median_2x2(images))


@pytest.mark.parametrize("levels", [8, 32])
@pytest.mark.parametrize("value", [0, 1, 100, 254, 255])
def test_constant_images_are_only_quantised(levels, value):
    images = torch.full((1, 3, 4, 4), value, dtype=torch.uint8)
    out = squeeze(images, levels=levels)
    assert out.unique().numel() == 1
    assert abs(int(out[0, 0, 0, 0]) - value) <= 255 / (levels - 1) / 2 + 0.5
    assert value not in (0, 255) or torch.equal(out, images)


def test_colours_and_median_together():
    """A lone bright pixel goes, one that is not alone in its windows stays.

    The order of the two cannot be seen: fewer colours keep the order of levels, which is all that a median looks at.
    """
    images = image([0, 0, 0, 0], [0, 255, 0, 0], [0, 0, 0, 200], [0, 0, 0, 200])
    assert squeeze(images, levels=2)[0, 0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 255]]


def test_images_and_channels_do_not_mix():
    images = random_images(3, 3, 8, 6)
    before = images.clone()
    out = squeeze(images, levels=32)
    assert out.shape == images.shape and out.dtype == torch.uint8
    assert torch.equal(images, before)
    for n in range(3):
        for c in range(3):
            assert torch.equal(out[n : n + 1, c : c + 1], squeeze(images[n : n + 1, c : c + 1], levels=32))
    assert squeeze(images[:0], levels=8).shape == (0, 3, 8, 6)
    assert pxd.squeeze is squeeze


BAD = {
    "float images": (NINE.float(), 8, TypeError, "uint8"),
    "three axes": (NINE[0], 8, ValueError, "(N, C, H, W)"),
    "one row": (NINE[:, :, :1], 8, ValueError, "2 x 2"),
    "one column": (NINE[..., :1], 8, ValueError, "2 x 2"),
    "one level": (NINE, 1, ValueError, "2..256"),
    "no level": (NINE, 0, ValueError, "levels"),
    "257 levels": (NINE, 257, ValueError, "2..256"),
    "levels a float": (NINE, 8.0, TypeError, "levels"),
    "levels a bool": (NINE, True, TypeError, "levels"),
}


@pytest.mark.parametrize("images, levels, kind, mention", BAD.values(), ids=BAD)
def test_bad_input(images, levels, kind, mention):
    with pytest.raises(kind) as caught:
        squeeze(images, levels=levels)
    assert mention in str(caught.value)


def test_the_filtered_classifier_sees_the_median_and_its_gradient_goes_to_the_chosen_sub_pixels():
    net = torch.nn.Flatten().eval()
    filtered = MedianFiltered(net)
    pixels = (NINE / 255).requires_grad_()
    assert torch.equal(filtered(pixels), net(median_2x2(NINE) / 255)) and not filtered.training
    (gradient,) = torch.autograd.grad(filtered(pixels).sum(), pixels)
    expected = [[0, 0, 2], [0, 6, 0], [0, 0, 1]]  # how often 5, 7 and 6 are in the median image
    assert gradient[0, 0].tolist() == expected


def test_a_filtered_classifier_is_in_the_mode_of_its_network():
    with pytest.raises(ValueError, match="training mode"):
        pxd.attacks.fgsm(MedianFiltered(torch.nn.Flatten().train()), NINE, torch.tensor([0]), eps=1)
