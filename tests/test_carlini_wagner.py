"""Carlini-Wagner: the distance to a hyperplane, both settings against each other, the published one step by step."""

import importlib

import pytest
import torch
from test_deepfool import distance_to_hyperplane, distances, linear, mid_grey, random_net
from torch import nn

from pixeldefend import predict
from pixeldefend.attacks import bim, carlini_wagner
from pixeldefend.attacks import deepfool as nearest_boundary
from pixeldefend.attacks.carlini_wagner import SETTINGS, _shrink_tau
from pixeldefend.checks import CLASSES
from pixeldefend.scaling import to_unit

MODULE = importlib.import_module("pixeldefend.attacks.carlini_wagner")  # the name in the package is the function's
N = 30


@pytest.fixture
def images():
    """Half of the pixels anywhere, the other half at the ends of the range, as in Fashion-MNIST."""
    generator = torch.Generator().manual_seed(0)
    inside = torch.randint(0, 256, (N, 1, 4, 4), generator=generator, dtype=torch.uint8)
    ends = 255 * torch.randint(0, 2, inside.shape, generator=generator, dtype=torch.uint8)
    return torch.where(torch.rand(inside.shape, generator=generator) < 0.5, inside, ends)


def fooled(net, images, labels, **options) -> torch.Tensor:
    return predict(net, carlini_wagner(net, images, labels, **options)) != labels


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_tuned_finds_the_distance_to_a_hyperplane(scale):
    """Within 2 % of |f| / |w|_1, apart from the level that integers cost."""
    net, images = linear(scale), mid_grey()
    labels = torch.zeros(len(images), dtype=torch.int64)
    true = distance_to_hyperplane(net, images, labels)
    out = carlini_wagner(net, images, labels, eps=120, setting="tuned")
    assert (predict(net, out) != 0).all()
    found = distances(images, out)
    assert (found >= true).all()
    assert (found <= torch.maximum(1.02 * true, true + 1)).all()


def test_published_finds_no_less_than_the_distance():
    net, images = linear(ahead=1.5), mid_grey()
    labels = torch.zeros(len(images), dtype=torch.int64)
    out = carlini_wagner(net, images, labels, eps=255)
    won = predict(net, out) != 0
    assert won.sum() > 30
    assert (distances(images, out)[won] >= distance_to_hyperplane(net, images, labels)[won]).all()


def test_tuned_is_stronger_on_the_same_images(images):
    """Whatever the published setting fools the tuned one fools, and more; and what BIM and DeepFool do to them."""
    net, eps = random_net(), 24
    labels = predict(net, images)
    published, tuned = (fooled(net, images, labels, eps=eps, setting=setting) for setting in SETTINGS)
    assert not (published & ~tuned).any()
    assert tuned.sum() > published.sum()
    assert tuned.sum() >= (predict(net, bim(net, images, labels, eps=eps)) != labels).sum()
    assert tuned.sum() >= (predict(net, nearest_boundary(net, images, labels, eps=eps)) != labels).sum()


def test_tuned_falls_back_on_published(images, monkeypatch):
    """Images on which the search fails get what the published setting gives, and no others."""
    search, net, eps = MODULE._Bisection.run, random_net(), 8
    labels = predict(net, images)
    published, alone = (carlini_wagner(net, images, labels, eps=eps, setting=setting) for setting in SETTINGS)
    fails = torch.arange(N) % 2 == 0

    def half_fails(bisection):
        best, broken = search(bisection)
        return best, broken & ~fails

    monkeypatch.setattr(MODULE._Bisection, "run", half_fails)
    tuned = carlini_wagner(net, images, labels, eps=eps, setting="tuned")
    assert torch.equal(tuned[fails], published[fails]) and torch.equal(tuned[~fails], alone[~fails])
    assert not torch.equal(published[fails], alone[fails])


def test_failures_are_tried_with_another_constant(images, monkeypatch):
    """With a constant so small that Adam ignores it every image stays at its start; the next one makes up for it."""
    net, found = random_net(), {}
    labels = predict(net, images)
    monkeypatch.setattr(MODULE, "nearest_crossing", lambda net, pixels, *_: pixels)
    monkeypatch.setattr(MODULE, "_shrink_tau", lambda net, clean, labels: clean)
    for constants in ((1e-20,), (1e-20, 10.0), (10.0,)):
        monkeypatch.setattr(MODULE, "TUNED_CONSTANTS", constants)
        found[constants] = fooled(net, images, labels, eps=24, setting="tuned").sum().item()
    assert found[1e-20, 10.0] >= found[10.0,] > found[1e-20,]


@pytest.mark.parametrize(("constant", "free"), [(0.0, False), (10.0, True)])
def test_a_constant_of_zero_is_a_wall(constant, free, images, monkeypatch):
    """The variable stays within the radius with the constant 0, and only with it."""
    net, eps, beyond = random_net(), 8, []
    labels = predict(net, images)
    moved = MODULE._Bisection._moved

    def watched(bisection, variable, live):
        variable = moved(bisection, variable, live)
        distance = 255 * (variable - to_unit(bisection.clean[live])).abs()
        beyond.append((distance > bisection._columns(live) + 1e-3).any().item())
        return variable

    monkeypatch.setattr(MODULE, "TUNED_CONSTANTS", (constant,))
    monkeypatch.setattr(MODULE._Bisection, "_moved", watched)
    carlini_wagner(net, images, labels, eps=eps, setting="tuned")
    assert len(beyond) > 60 and any(beyond) == free


def test_tuned_does_not_depend_on_torch_s_default_device(images):
    net = random_net()
    labels = predict(net, images)
    expected = carlini_wagner(net, images[:3], labels[:3], eps=8, setting="tuned")
    with torch.device("meta"):
        assert torch.equal(carlini_wagner(net, images[:3], labels[:3], eps=8, setting="tuned"), expected)


def test_tuned_depends_on_no_batch_and_no_generator(images):
    """Its starts are random, but the same for every image and every call."""
    net, images = random_net(), images[:6]
    labels = predict(net, images)
    together = carlini_wagner(net, images, labels, eps=24, setting="tuned")
    state = torch.get_rng_state()
    parts = carlini_wagner(net, images, labels, eps=24, setting="tuned", batch_size=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert ((parts.int() - together.int()).abs() <= 1).float().mean() > 0.95, "float noise may decide a rounding"


@pytest.mark.parametrize("setting", SETTINGS)
def test_success_grows_with_eps(setting, images):
    net = random_net()
    labels = predict(net, images)
    counts = [fooled(net, images, labels, eps=eps, setting=setting).sum().item() for eps in (0, 2, 24)]
    assert counts == sorted(counts)
    assert counts[0] == 0 and counts[-1] > counts[1]


@pytest.mark.parametrize("setting", SETTINGS)
def test_ball_range_and_traces(setting, images):
    net, eps = random_net(), 5
    labels, before = predict(net, images), images.clone()
    out = carlini_wagner(net, images, labels, eps=eps, setting=setting)
    assert out.dtype == torch.uint8 and out.shape == images.shape
    assert 1 <= distances(images, out).max() <= eps
    assert torch.equal(images, before)
    assert all(parameter.grad is None for parameter in net.parameters())
    with torch.no_grad():
        assert torch.equal(carlini_wagner(net, images, labels, eps=eps, setting=setting), out)


@pytest.mark.parametrize("setting", SETTINGS)
def test_misclassified_images_stay(setting, images):
    net = random_net()
    labels = (predict(net, images) + 1) % CLASSES
    assert torch.equal(carlini_wagner(net, images, labels, eps=8, setting=setting), images)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_constant_network_is_given_up(setting, images):
    """The label's gradient is zero everywhere: every run takes all its steps, and ends."""
    net, calls = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).eval(), []
    net[1].weight.data.zero_()
    labels = predict(net, images)
    net.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    assert torch.equal(carlini_wagner(net, images, labels, eps=8, setting=setting), images)
    assert sum(calls) == {"as_published": 101, "tuned": 5 + 7 * 60 + 101}[setting]  # the last one looks at the last step


def published_by_hand(net, clean, label):
    """The authors' loop for one image, with autograd and an Adam written out, in the same float32."""
    tau, found = 1.0, clean
    while tau > 1 / 256:
        start = ((2 * found - 1) * 0.9999995).atanh()
        change, m, v = torch.zeros_like(clean), torch.zeros_like(clean), torch.zeros_like(clean)
        for t in range(1, 101):
            change.requires_grad_()
            image = (torch.tanh(start + change) + 1) / 2
            logits = net(image)[0]
            others = torch.cat([logits[:label], logits[label + 1 :]])
            penalty = ((image - clean).abs() - tau).clamp(min=0).sum()
            loss = 1e-5 * (logits[label] - others.max()).clamp(min=0) + penalty
            gradient = torch.autograd.grad(loss, change)[0]
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            rate = 5e-3 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
            change = change.detach() - rate * m / (v.sqrt() + 1e-8)
            image = (torch.tanh(start + change) + 1) / 2
            if loss < 1e-9 and net(image).argmax() != label:  # the loss before the step, the image after it
                break
        else:
            return found
        found = image
        tau = 0.9 * min(tau, (found - clean).abs().max().item())
    return found


def test_published_step_by_step(images):
    """All images at once, each with its own state, do what each does alone."""
    net = random_net().requires_grad_(False)
    clean, labels = to_unit(images[:6]), predict(net, images[:6])
    together = _shrink_tau(net, clean, labels)
    for k in range(6):
        alone = published_by_hand(net, clean[k : k + 1], labels[k].item())
        assert (together[k : k + 1] - alone).abs().max() < 2e-3
    assert (together - clean).abs().amax() > 0.02


def test_rounding(images):
    """The option moves no level by more than one, and outward never less far."""
    net = random_net()
    labels = predict(net, images)
    outward, nearest = (
        carlini_wagner(net, images, labels, eps=64, rounding=rounding).int() - images.int()
        for rounding in ("outward", "nearest")
    )
    assert not torch.equal(outward, nearest)
    assert (outward - nearest).abs().max() == 1
    assert (outward.abs() >= nearest.abs()).all()


@pytest.mark.parametrize("change, mention", [
    ({"setting": "strong"}, "as_published, tuned"), ({"rounding": "down"}, "nearest, outward"),
])
@pytest.mark.parametrize("eps", [0, 8])
def test_bad_options(change, mention, eps, images):
    with pytest.raises(ValueError, match=mention):
        carlini_wagner(random_net(), images, torch.zeros(N, dtype=torch.int64), eps=eps, **change)
