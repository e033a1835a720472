"""Unrolled purification: greedy when cold, and its gradient is that of the network with one copy for every pixel."""

import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend import PixelCNN, PixelDefend
from pixeldefend.attacks import bim
from pixeldefend.defenses import UnrolledPurification, gradient_flow
from pixeldefend.pixelcnn.logistic import bin_log_mass, condition_on_channels, scale_levels, split_parameters

CHANNELS = pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
EPS, MIXTURES = 40, 3


def peaked_density(channels: int, size: int = 8) -> PixelCNN:
    """Narrow modes that move much with the pixels before them, so that choices are clear-cut and hang on each other."""
    density = small_density(channels, size, size, mixtures=MIXTURES)
    means, scales = ((MIXTURES * k, MIXTURES * (k + channels)) for k in (1, 1 + channels))
    with torch.no_grad():
        density.network.head.g[slice(*means)] *= 4.0
        density.network.head.b[slice(*scales)] -= 3.0
    return density


def small_net(channels: int) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(10)).eval()
    net(torch.zeros(1, channels, 8, 8))
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.0, 0.5, generator=generator)
    return net


@CHANNELS
def test_cold_it_is_greedy_purification(channels):
    density, images = peaked_density(channels), random_images(12, channels, 8, 8, seed=1)
    greedy = PixelDefend(density, eps_defend=EPS)(images)
    levels = UnrolledPurification(density, eps_defend=EPS, temperature=1e-6)(images / 255) * 255
    cold = levels.round().to(torch.uint8)
    same = (cold == greedy).flatten(1).all(1)
    assert same.float().mean() > 0.7  # in the others two levels are, but for rounding, equally likely: see below
    log_probs = density.conditional_log_probs(cold)
    distance = torch.arange(256) - images[..., None].int()
    best = log_probs.masked_fill(distance.abs() > EPS, -torch.inf).amax(-1)
    # where two levels tie their mean comes out, and what follows in that image has another context
    settled = ((levels - cold).abs() < 1e-3).flatten(1).all(1)
    assert settled.float().mean() > 0.7
    assert torch.allclose(log_probs.gather(-1, cold[..., None].long())[..., 0][settled], best[settled], atol=1e-4)
    warm = UnrolledPurification(density, eps_defend=EPS, temperature=1.0)(images / 255) * 255
    assert (warm - greedy).abs().mean() > 0.5  # a warm one is another defence


def pixel_by_pixel(density: PixelCNN, levels: torch.Tensor, eps: int, temperature: float) -> torch.Tensor:
    """The network unrolled in full, one pass for each sub-pixel, over all 256 levels; autograd keeps the graph."""
    channels, height, width = levels.shape[1:]
    done = []
    for i in range(height * width):
        for k in range(channels):
            blank = levels.new_zeros(len(levels), height * width * channels - len(done))
            context = torch.cat([torch.stack(done, 1), blank], 1) if done else blank
            scaled = scale_levels(context.view(len(levels), height, width, channels))
            parameters = density.network(scaled.movedim(-1, 1)).movedim(1, -1).flatten(1, 2)[:, i]
            mixture = split_parameters(parameters, channels)
            means = condition_on_channels(mixture, scaled.flatten(1, 2)[:, i])[:, k]
            z, x = torch.arange(256.0), levels.flatten(2)[:, k, i, None]
            log_mass = bin_log_mass(means[:, None], mixture.log_scales[:, k, None], z[:, None])
            log_probs = (mixture.log_weights[:, None] + log_mass).logsumexp(-1)
            inside = (eps + 0.5 - (z - x).abs()).clamp(0, 1)
            weights = (log_probs / temperature + inside.clamp(min=1e-30).log()).masked_fill(inside == 0, -1e9).softmax(1)
            done.append((z * weights).sum(1))
    return torch.stack(done, 1).view(len(levels), height, width, channels).movedim(-1, 1)


@CHANNELS
def test_values_and_gradients_are_those_of_the_unrolled_network(channels):
    density, images = peaked_density(channels, 4), random_images(2, channels, 4, 4, seed=2)
    pixels = (images / 255).requires_grad_()
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    expected = pixel_by_pixel(density, pixels * 255, EPS, 0.7) / 255
    out = UnrolledPurification(density, eps_defend=EPS, temperature=0.7)(pixels)
    assert torch.allclose(out, expected, atol=1e-5)
    (by_hand,) = torch.autograd.grad((expected * direction).sum(), pixels)
    (gradient,) = torch.autograd.grad((out * direction).sum(), pixels)
    assert torch.allclose(gradient, by_hand, atol=1e-4 * by_hand.abs().max())
    own_choice_only = torch.autograd.grad(
        (UnrolledPurification(density, eps_defend=EPS, temperature=0.7).choose(pixels * 255, out.detach() * 255) / 255
         * direction).sum(), pixels)[0]  # fmt: skip
    assert (own_choice_only - by_hand).abs().max() > 0.1 * by_hand.abs().max()  # what later pixels make of it matters


@CHANNELS
def test_the_gradient_is_the_difference_quotient(channels):
    purification = UnrolledPurification(peaked_density(channels, 4), eps_defend=EPS, temperature=1.0)
    pixels = (random_images(1, channels, 4, 4, seed=4) / 255).requires_grad_()
    weights = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(5))
    (gradient,) = torch.autograd.grad((purification(pixels) * weights).sum(), pixels)
    step = 0.2 / 255  # the softened ends of the range have kinks half a level from integers
    shifts = step * torch.eye(pixels.numel()).view(-1, *pixels.shape[1:])  # one sub-pixel each
    with torch.no_grad():
        above, below = (((purification(pixels + s * shifts)) * weights).sum((1, 2, 3)) for s in (1, -1))
    quotient = ((above - below) / (2 * step)).view_as(pixels)
    assert torch.allclose(gradient, quotient, atol=0.02 * gradient.abs().max())


def test_the_result_stays_in_the_ball_and_the_range_and_changes_nothing_else():
    density = small_density(1, 16, 16)
    pixels = torch.arange(256.0).view(1, 1, 16, 16) / 255
    before = pixels.clone()
    for eps in (1, 32, 255):
        out = UnrolledPurification(density, eps_defend=eps, temperature=0.5)(pixels)
        assert out.shape == pixels.shape and out.dtype == torch.float32
        assert (out - pixels).abs().max() <= (eps + 1e-3) / 255
        assert out.min() >= 0 and out.max() <= 1
    assert torch.equal(pixels, before)


def test_pixels_half_way_between_levels_have_values_and_gradients():
    pixels = ((random_images(1, 1, 8, 8).clamp(max=254) + 0.5) / 255).requires_grad_()
    out = UnrolledPurification(peaked_density(1), eps_defend=EPS, temperature=1e-3)(pixels)
    (gradient,) = torch.autograd.grad(out.sum(), pixels)
    assert out.isfinite().all() and gradient.isfinite().all()


def test_images_do_not_depend_on_their_batch():
    purification = UnrolledPurification(peaked_density(1), eps_defend=EPS, temperature=0.3)
    images = torch.cat([random_images(3, 1, 8, 8, seed=6), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)])
    together = purification(images / 255)
    alone = torch.cat([purification(image[None] / 255) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
    assert purification(images[:0] / 255).shape == (0, 1, 8, 8)


def test_bim_attacks_the_whole_system():
    density, net, images = peaked_density(1), small_net(1), random_images(6, 1, 8, 8, seed=7)
    system = nn.Sequential(UnrolledPurification(density, eps_defend=EPS, temperature=1.0), net).eval()

    def loss(given):
        return nn.functional.cross_entropy(system(given / 255), labels, reduction="none").detach()

    labels = system(images / 255).argmax(1)
    attacked = bim(system, images, labels, eps=4)
    assert (attacked.int() - images.int()).abs().max() <= 4
    assert (loss(attacked) > loss(images)).all()
    assert all(parameter.grad is None for parameter in system.parameters())


def test_gradient_flow_adds_up():
    density, net, images = peaked_density(1), small_net(1), random_images(3, 1, 8, 8, seed=8)
    labels = torch.tensor([1, 2, 3])
    purification = UnrolledPurification(density, eps_defend=EPS, temperature=0.5)
    flow = gradient_flow(purification, net, images, labels)
    pixels = (images / 255).requires_grad_()
    purified = purification(pixels)
    loss = nn.functional.cross_entropy(net(purified), labels, reduction="sum")
    incoming, outgoing = torch.autograd.grad(loss, (purified, pixels))
    assert torch.allclose(flow.incoming, incoming, atol=1e-4 * incoming.abs().max())
    assert torch.allclose(flow.outgoing, outgoing, atol=1e-4 * outgoing.abs().max())
    assert torch.allclose(flow.purified, purified.detach() * 255, atol=0.01) and not flow.purified.requires_grad
    assert flow.chain_norms.shape[0] == 3 and 1 < flow.chain_norms.shape[1] <= 64
    direct = torch.autograd.grad(purification.choose(pixels * 255, purified.detach() * 255), pixels, incoming / 255)[0]
    assert torch.allclose(flow.chain_norms[:, 0], direct.flatten(1).norm(dim=1), rtol=1e-3)


def test_a_caller_may_be_in_inference_mode():
    density, net, images = peaked_density(1), small_net(1), random_images(2, 1, 8, 8, seed=8)
    labels, purification = torch.tensor([1, 2]), UnrolledPurification(density, eps_defend=EPS, temperature=0.5)
    flow, pixels = gradient_flow(purification, net, images, labels), (images / 255).requires_grad_()
    total = purification(pixels).square().sum()
    (expected,) = torch.autograd.grad(total, pixels, retain_graph=True)
    with torch.inference_mode():
        again = gradient_flow(purification, net, images.clone(), labels.clone())
        (gradient,) = torch.autograd.grad(total, pixels)
    for name, value in vars(flow).items():
        assert torch.equal(getattr(again, name), value)
    assert torch.equal(gradient, expected)


def test_gradients_vanish_in_the_cold():
    """Greedy purification is constant but for jumps: next to no pixel can be moved by its gradient."""
    density, net, images = peaked_density(1), small_net(1), random_images(3, 1, 8, 8, seed=9)
    still = [
        (gradient_flow(UnrolledPurification(density, eps_defend=EPS, temperature=t), net, images, torch.arange(3)).outgoing
         == 0).float().mean()
        for t in (1.0, 1e-4)
    ]  # fmt: skip
    assert still[0] < 0.1 and still[1] > 0.9


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps_defend": 0}, ValueError, "at least 1"),
        ({"eps_defend": 256}, ValueError, "0..255"),
        ({"eps_defend": 8.0}, TypeError, "integer"),
        ({"temperature": 0}, ValueError, "above 0"),
        ({"temperature": float("nan")}, ValueError, "above 0"),
        ({"temperature": float("inf")}, ValueError, "finite"),
        ({"temperature": "1"}, TypeError, "number"),
    ],
    ids=["eps 0", "eps 256", "eps float", "zero", "nan", "infinite", "text"],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        UnrolledPurification(small_density(1), **{"eps_defend": 8, "temperature": 1.0, **options})


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (random_images(1, 1, 8, 8), TypeError, "floating-point"),
        (torch.full((1, 1, 8, 8), 1.5), ValueError, "0, 1"),
        (torch.full((1, 1, 8, 8), torch.nan), ValueError, "0, 1"),
        (torch.zeros(1, 8, 8), ValueError, "N, C, H, W"),
        (torch.zeros(1, 3, 8, 8), ValueError, "channel"),
        (torch.zeros(1, 1, 8, 6), ValueError, "multiples of 4"),
    ],
    ids=["levels", "too large", "nan", "three axes", "channels", "size"],
)
def test_bad_pixels_are_refused(pixels, error, message):
    with pytest.raises(error, match=message):
        UnrolledPurification(small_density(1), eps_defend=8, temperature=1.0)(pixels)


def test_bad_densities_and_classifiers_are_refused():
    with pytest.raises(TypeError, match="PixelCNN"):
        UnrolledPurification(nn.Identity(), eps_defend=8, temperature=1.0)
    with pytest.raises(ValueError, match="training mode"):
        UnrolledPurification(small_density(1).train(), eps_defend=8, temperature=1.0)
    purification = UnrolledPurification(small_density(1), eps_defend=8, temperature=1.0)
    images, labels, net = random_images(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), small_net(1)
    with pytest.raises(TypeError, match="UnrolledPurification"):
        gradient_flow(nn.Identity(), net, images, labels)
    with pytest.raises(ValueError, match="training mode"):
        gradient_flow(purification, small_net(1).train(), images, labels)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        gradient_flow(purification, net, images, labels[:1])
    with pytest.raises(TypeError, match="uint8"):
        gradient_flow(purification, net, images / 255, labels)
    with pytest.raises(ValueError, match="10"):
        gradient_flow(purification, nn.Flatten().eval(), images, labels)
