"""Algorithm 1: every sub-pixel is the best in its feasible range, given the purified ones before it."""

import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend import DefendedClassifier, PixelDefend

CHANNELS = pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])


@CHANNELS
@pytest.mark.parametrize("eps", [1, 16, 200])
def test_every_sub_pixel_is_the_argmax_of_its_range_under_the_purified_image(channels, eps):
    density = small_density(channels)
    images = random_images(3, channels, 8, 8, seed=4)
    purified = PixelDefend(density, eps_defend=eps, batch_size=2)(images)
    log_probs = density.conditional_log_probs(purified)
    distance = torch.arange(256) - images[..., None].int()
    best = log_probs.masked_fill(distance.abs() > eps, -torch.inf).amax(-1)
    chosen = log_probs.gather(-1, purified[..., None].long())[..., 0]
    assert ((purified.int() - images.int()).abs() <= eps).all()
    assert torch.allclose(chosen, best, atol=1e-5)


def test_purification_is_the_exhaustive_greedy_choice_by_hand():
    """On a 4 x 4 image, without the package's decoder: try every candidate, score the whole image, keep the best."""
    density = small_density(1, 4, 4)
    original = random_images(1, 1, 4, 4, seed=5)
    eps = 9
    by_hand = original.clone()
    for i in range(4):
        for j in range(4):
            x = int(original[0, 0, i, j])
            candidates = range(max(x - eps, 0), min(x + eps, 255) + 1)
            trials = by_hand.repeat(len(candidates), 1, 1, 1)
            trials[:, 0, i, j] = torch.tensor(list(candidates), dtype=torch.uint8)
            level = trials[:, 0, i, j].long()
            scores = density.conditional_log_probs(trials)[torch.arange(len(level)), 0, i, j, level]
            by_hand[0, 0, i, j] = candidates[int(scores.argmax())]
    assert torch.equal(PixelDefend(density, eps_defend=eps)(original), by_hand)


@pytest.mark.parametrize("eps", [0, 1, 32, 255])
def test_all_256_levels_stay_inside_the_ball_and_the_range(eps):
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    purified = PixelDefend(small_density(1, 16, 16), eps_defend=eps)(images)
    assert purified.dtype == torch.uint8 and purified.shape == images.shape
    assert ((purified.int() - images.int()).abs() <= eps).all()


def test_the_lowest_level_wins_ties():
    """With every scale far beyond the image, all levels inside 1..254 are equally likely in float32."""
    density = small_density(1, 4, 4, mixtures=1)
    with torch.no_grad():
        density.network.head.g.zero_()
        density.network.head.b.copy_(torch.tensor([0.0, 0.0, 30.0]))  # weight, mean, log-scale
    images = torch.full((1, 1, 4, 4), 100, dtype=torch.uint8)
    assert (PixelDefend(density, eps_defend=5)(images) == 95).all()


def test_purification_is_deterministic_and_eps_zero_returns_a_copy():
    density = small_density(1)
    images = random_images(5, 1, 8, 8, seed=6)
    same = PixelDefend(density, eps_defend=0)(images)
    assert torch.equal(same, images) and same.data_ptr() != images.data_ptr()
    purify = PixelDefend(density, eps_defend=20)
    assert torch.equal(purify(images), purify(images))
    assert purify(images[:0]).shape == (0, 1, 8, 8)
    assert torch.equal(images, random_images(5, 1, 8, 8, seed=6)), "the input is left as it was"


def test_the_adaptive_version_purifies_only_what_is_unlikely():
    density = small_density(1)
    images = random_images(6, 1, 8, 8, seed=8)
    bits = density.bits_per_dim(images)
    threshold = float(bits.median())
    adaptive = PixelDefend(density, eps_defend=30, threshold=threshold)(images)
    assert torch.equal(adaptive[bits <= threshold], images[bits <= threshold])
    assert torch.equal(adaptive[bits > threshold], PixelDefend(density, eps_defend=30)(images[bits > threshold]))
    assert torch.equal(PixelDefend(density, eps_defend=30, threshold=1e9)(images), images)


class Sum(nn.Module):
    """Logit z is z times the sum of the pixels: its gradient is known."""

    def forward(self, pixels):
        return pixels.sum((1, 2, 3))[:, None] * torch.arange(10.0)


def test_a_defended_classifier_classifies_the_purified_image_and_passes_gradients_straight_through():
    purify = PixelDefend(small_density(1), eps_defend=20)
    images = random_images(2, 1, 8, 8)
    pixels = (images / 255).requires_grad_()
    defended = DefendedClassifier(Sum().eval(), purify)
    logits = defended(pixels)
    assert torch.allclose(logits, Sum()(purify(images) / 255))
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), pixels)
    assert torch.equal(gradient, torch.full_like(pixels, 3.0))
    stopped = DefendedClassifier(Sum().eval(), purify, gradient="none")(pixels)
    assert not torch.autograd.grad(stopped.sum(), pixels, allow_unused=True)[0]


@pytest.mark.parametrize(
    ("purify", "error", "message"),
    [(lambda x: x / 255, TypeError, "purify's result"), (lambda x: x[:, :, :4], ValueError, "keep the shape")],
    ids=["floats", "another shape"],
)
def test_a_defended_classifier_refuses_what_is_no_purified_image(purify, error, message):
    with pytest.raises(error, match=message):
        DefendedClassifier(Sum().eval(), purify)(random_images(2, 1, 8, 8) / 255)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps_defend": -1}, ValueError, "0..255"),
        ({"eps_defend": 256}, ValueError, "0..255"),
        ({"eps_defend": 8.0}, TypeError, "integer"),
        ({"eps_defend": 8, "threshold": float("nan")}, ValueError, "threshold"),
        ({"eps_defend": 8, "threshold": "2"}, ValueError, "threshold"),
        ({"eps_defend": 8, "batch_size": 0}, ValueError, "at least 1"),
        ({"eps_defend": 8, "precision": "half"}, ValueError, "unknown precision"),
    ],
    ids=["negative", "too large", "float", "nan threshold", "text threshold", "batch size", "precision"],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        PixelDefend(small_density(1), **options)


def test_bad_densities_images_and_gradients_are_refused():
    density = small_density(1)
    with pytest.raises(TypeError, match="PixelCNN"):
        PixelDefend(nn.Identity(), eps_defend=8)
    with pytest.raises(ValueError, match="training mode"):
        PixelDefend(small_density(1).train(), eps_defend=8)
    for images, error in ((torch.zeros(1, 1, 8, 8), TypeError), (random_images(1, 3, 8, 8), ValueError)):
        with pytest.raises(error):
            PixelDefend(density, eps_defend=8)(images)
    with pytest.raises(ValueError, match="bpda, none"):
        DefendedClassifier(Sum().eval(), PixelDefend(density, eps_defend=8), gradient="exact")
    with pytest.raises(ValueError, match="training mode"):
        DefendedClassifier(Sum(), PixelDefend(density, eps_defend=8))
