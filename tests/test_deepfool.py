"""DeepFool: the distance to a hyperplane, rounding, when it stops, and what eps and its options do."""

import pytest
import torch
from torch import nn

from pixeldefend import predict
from pixeldefend.attacks import deepfool, deepfool_crossing
from pixeldefend.checks import CLASSES
from pixeldefend.scaling import to_unit

SHAPE = (1, 4, 4)
N = 40


def linear(scale: float = 1.0, ahead: float = 5.0) -> nn.Module:
    """Ten classes; class 0 is ahead by about ``ahead``, for 5 about 62 levels from mid-grey images."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    net[1].weight.normal_(generator=generator)
    net[1].bias.copy_(-0.5 * net[1].weight.sum(1))  # at mid-grey every logit is about zero
    net[1].bias[0] += ahead
    net[1].weight.mul_(scale)
    net[1].bias.mul_(scale)
    return net


def random_net() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Flatten(), nn.Linear(32, CLASSES)).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.0, 0.7, generator=generator)
    return net


def mid_grey() -> torch.Tensor:
    return torch.randint(120, 136, (N, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def images(generator):
    return torch.randint(0, 256, (100, *SHAPE), generator=generator, dtype=torch.uint8)


@pytest.fixture
def labels():
    return torch.zeros(N, dtype=torch.int64)


def distance_to_hyperplane(net, images, labels) -> torch.Tensor:
    """In levels: the smallest |f_k| / |w_k|_1 over the other classes."""
    with torch.no_grad():
        logits = net(to_unit(images)).double()
    weight = net[1].weight.double()
    each = (logits.gather(1, labels[:, None]) - logits) / (weight[labels][:, None] - weight).abs().sum(2)
    return 255 * each.scatter(1, labels[:, None], torch.inf).amin(1)


def distances(images, other) -> torch.Tensor:
    return (images.int() - other.int()).abs().flatten(1).amax(1)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_distance_to_a_hyperplane(scale, labels):
    """Within 2 % of |f| / |w|_1; the logits' scale does not matter."""
    net, images = linear(scale), mid_grey()
    true = distance_to_hyperplane(net, images, labels)
    assert (predict(net, images) == 0).all()
    assert true.min() > 50 and true.max() < 110  # far more than one level, and nothing is clipped at 0 or 255
    out = deepfool(net, images, labels, eps=255, overshoot=1e-3)
    assert (predict(net, out) != 0).all()
    assert ((distances(images, out) - true).abs() <= torch.maximum(0.02 * true, torch.ones(()))).all()
    assert (distances(images, out) / true - 1).mean().abs() < 0.02


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("overshoot", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("ahead", [0.2, 5.0], ids=["near", "far"])
def test_distance_to_a_hyperplane_before_rounding(scale, overshoot, ahead):
    """1 + overshoot times |f| / |w|_1, at every pixel, of whatever fraction of a level; within 0.2 %."""
    net, images = linear(scale, ahead), mid_grey()
    labels = predict(net, images)
    true = distance_to_hyperplane(net, images, labels)
    found = deepfool_crossing(net, images, labels, overshoot=overshoot)
    with torch.no_grad():
        assert (net(found).argmax(1) != labels).all()
    moved = 255 * (found - to_unit(images)).abs().flatten(1).double()
    assert ((moved / ((1 + overshoot) * true[:, None]) - 1).abs() < 0.002).all()


@pytest.mark.parametrize("overshoot", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("rounding", ["outward", "nearest"])
def test_one_step_of_a_linear_network_exactly(overshoot, rounding, labels):
    """All pixels move by the same number of levels: (1 + overshoot) times the distance, rounded."""
    net, images = linear(), mid_grey()
    moved = (1 + overshoot) * distance_to_hyperplane(net, images, labels)
    expected = moved.ceil() if rounding == "outward" else moved.round()
    out = deepfool(net, images, labels, eps=255, overshoot=overshoot, rounding=rounding)
    change = (out.int() - images.int()).abs().flatten(1)
    assert torch.equal(change.amax(1), expected.int())
    assert torch.equal(change.amin(1), change.amax(1))


def test_towards_the_nearest_class(labels):
    net, images = linear(), mid_grey()
    with torch.no_grad():
        logits = net(to_unit(images))
    slopes = (net[1].weight - net[1].weight[0]).abs().sum(1)
    nearest = ((logits[:, :1] - logits) / slopes)[:, 1:].argmin(1) + 1
    assert torch.equal(predict(net, deepfool(net, images, labels, eps=255)), nearest)


def test_rounding_outward_keeps_what_nearest_loses(images):
    net = random_net()
    labels = predict(net, images)
    left = {
        rounding: (predict(net, deepfool(net, images, labels, eps=255, rounding=rounding)) == labels).sum()
        for rounding in ("outward", "nearest")
    }
    assert left["outward"] < 5
    assert left["nearest"] > left["outward"] + 5


def test_success_grows_with_eps(images):
    net = random_net()
    labels = predict(net, images)
    fooled = [(predict(net, deepfool(net, images, labels, eps=eps)) != labels).sum().item() for eps in (0, 1, 4, 16, 255)]
    assert fooled == sorted(fooled)
    assert fooled[0] == 0 and fooled[-1] > 95


def test_eps_clips_the_same_perturbation(images):
    net = random_net()
    labels = predict(net, images)
    far = deepfool(net, images, labels, eps=255).int() - images.int()
    for eps in (1, 5):
        change = deepfool(net, images, labels, eps=eps).int() - images.int()
        assert torch.equal(change, far.clamp(-eps, eps))


def test_more_iterations_fool_more(images):
    net = random_net()
    labels = predict(net, images)
    fooled = [
        (predict(net, deepfool(net, images, labels, eps=255, max_iterations=n)) != labels).sum() for n in (1, 50)
    ]
    assert fooled[0] < fooled[1]


@pytest.mark.parametrize("max_iterations", [1, 3])
def test_number_of_gradients(max_iterations, images):
    """Ten per iteration and image that still moves, on one forward pass; images that are done cost nothing."""
    net, calls = random_net(), []
    labels = (predict(net, images) + 1) % CLASSES
    net.register_forward_hook(lambda module, given, out: calls.append((len(out), out.requires_grad)))
    assert torch.equal(deepfool(net, images, labels, eps=8, label_source="true"), images)
    assert calls == [(100, False)]  # misclassified already: nothing to do
    calls.clear()
    deepfool(net, images, labels, eps=8, max_iterations=max_iterations)
    sizes = [size for size, with_gradient in calls if with_gradient]
    assert len(sizes) == max_iterations
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 100
    assert max_iterations == 1 or sizes[-1] < 100


def test_images_at_the_ends_of_the_range(generator):
    """Clipping to 0..255 costs half of the pixels their step; the following steps make up for it."""
    images = 255 * torch.randint(0, 2, (100, *SHAPE), generator=generator, dtype=torch.uint8)
    net = random_net()
    labels = predict(net, images)
    with torch.no_grad():  # before rounding: without a shortest step 42 of them stall just short of the boundary
        assert (net(deepfool_crossing(net, images, labels)).argmax(1) != labels).all()
    assert (predict(net, deepfool(net, images, labels, eps=255)) != labels).sum() > 80


def test_constant_network_changes_nothing(images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).eval()
    net[1].weight.data.zero_()
    assert torch.equal(deepfool(net, images, predict(net, images), eps=8), images)


BAD = {
    "no iterations": ({"max_iterations": 0}, ValueError, "max_iterations"),
    "half an iteration": ({"max_iterations": 0.5}, TypeError, "max_iterations"),
    "overshoot negative": ({"overshoot": -0.1}, ValueError, "overshoot"),
    "overshoot NaN": ({"overshoot": float("nan")}, ValueError, "overshoot"),
    "overshoot infinite": ({"overshoot": float("inf")}, ValueError, "overshoot"),
    "overshoot a word": ({"overshoot": "much"}, TypeError, "overshoot"),
    "rounding unknown": ({"rounding": "down"}, ValueError, "nearest, outward"),
}


@pytest.mark.parametrize("eps", [0, 8])
@pytest.mark.parametrize("change, kind, mention", BAD.values(), ids=BAD)
def test_bad_options(change, kind, mention, eps, images):
    with pytest.raises(kind, match=mention):
        deepfool(random_net(), images, torch.zeros(100, dtype=torch.int64), **{"eps": eps} | change)
