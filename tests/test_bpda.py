"""BPDA: purify, take the gradient there, step here, and stop once the defence has failed."""

import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend import DefendedClassifier, PixelDefend, accuracy, predict
from pixeldefend.attacks import bim, bpda
from pixeldefend.attacks._common import gradient_sign

EPS = 8


def small_net(first: float = 1.0, last: float = 0.2) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 10)).eval()
    generator = torch.Generator().manual_seed(1)
    for layer, scale in ((net[0], first), (net[3], last)):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, 0.0, scale, generator=generator)
    return net


def quantise(images):
    """A purifier without a gradient: the middle of 16 neighbouring levels."""
    return images // 16 * 16 + 8


class Recorder:
    """A purifier that remembers what it was given."""

    def __init__(self, purify):
        self.purify, self.calls = purify, []

    def __call__(self, images):
        self.calls.append(images.clone())
        return self.purify(images)


@pytest.fixture
def images():
    return random_images(24, 1, 8, 8, seed=3)


@pytest.fixture
def labels(images):
    """What the defended classifier says of clean images: it is right on all of them."""
    return predict(small_net(), quantise(images))


def one_by_one(net, image, label, purify, eps, steps):
    """The attack on one image, in plain Python: the list of its iterates, the last of them the result."""
    iterates = [image]
    for _ in range(steps):
        purified = purify(iterates[-1])
        if predict(net, purified) != label:
            break
        moved = iterates[-1].int() + gradient_sign(net, purified, label)
        iterates.append(moved.clamp(image.int() - eps, image.int() + eps).clamp(0, 255).to(torch.uint8))
    return iterates


def test_every_image_goes_its_own_way_until_it_fools_the_defence(images, labels):
    net, purify = small_net(), Recorder(quantise)
    out = bpda(net, images, labels, purify=purify, eps=EPS, steps=12)
    ways = [one_by_one(net, images[i : i + 1], labels[i : i + 1], quantise, EPS, 12) for i in range(len(images))]
    assert torch.equal(out, torch.cat([way[-1] for way in ways]))
    lengths = {len(way) for way in ways}
    assert 13 in lengths and len(lengths) > 3, "some never fail and others fail at different steps"
    # each call holds the present images of those that have not failed
    for n, given in enumerate(purify.calls):
        assert torch.equal(given, torch.cat([way[n] for way in ways if len(way) > n]))
    assert len(purify.calls) == 12


def test_what_is_returned_fooled_the_defence_if_anything_did(images, labels):
    net = small_net()
    few, many = (bpda(net, images, labels, purify=quantise, eps=EPS, steps=steps) for steps in (6, 40))
    fooled = [predict(net, quantise(out)) != labels for out in (few, many)]
    assert 0 < fooled[0].sum() <= fooled[1].sum()
    assert torch.equal(few[fooled[0]], many[fooled[0]]), "more steps leave a success alone"
    # a result that fools the defence is its first iterate to do so: one step less does not
    shorter = bpda(net, images, labels, purify=quantise, eps=EPS, steps=5)
    last = fooled[0] & (shorter != few).flatten(1).any(1)
    assert last.any() and torch.equal(predict(net, quantise(shorter))[last], labels[last])


def test_an_image_that_is_wrong_already_is_returned_unchanged(images, labels):
    wrong = (labels + 1) % 10
    purify = Recorder(quantise)
    assert torch.equal(bpda(small_net(), images, wrong, purify=purify, eps=EPS), images)
    assert len(purify.calls) == 1


@pytest.mark.parametrize("eps", [0, 1, 8, 255])
@pytest.mark.parametrize("step_size", [1, 5])
def test_stays_in_the_ball_at_every_level(eps, step_size):
    images = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    before = images.clone()
    net = small_net(last=0.01)  # nearly constant, so that the attack has to go on
    out = bpda(net, images, predict(net, quantise(images)), purify=quantise, eps=eps, step_size=step_size)
    assert out.dtype == torch.uint8 and out.shape == images.shape
    assert (out.int() - images.int()).abs().max() <= eps
    assert torch.equal(images, before) and out.data_ptr() != images.data_ptr()
    assert (eps == 0) == torch.equal(out, images)


def test_where_it_does_not_stop_it_is_bim_on_the_defended_classifier(images, labels):
    net = small_net()
    out = bpda(net, images, labels, purify=quantise, eps=EPS, steps=10)  # as many as bim makes
    same = bim(DefendedClassifier(net, quantise), images, labels, eps=EPS)
    failed = [len(one_by_one(net, images[i : i + 1], labels[i : i + 1], quantise, EPS, 10)) < 11 for i in range(24)]
    unbroken = ~torch.tensor(failed)
    assert 0 < unbroken.sum() < 24
    assert torch.equal(out[unbroken], same[unbroken])


def test_it_breaks_more_of_pixel_defend_than_an_attack_that_does_not_know_it():
    net, images = small_net(2.0, 0.05), random_images(24, 1, 8, 8, seed=5)
    purify = PixelDefend(small_density(1), eps_defend=64)
    labels = predict(net, purify(images))
    left = {
        name: accuracy(net, purify(attacked), labels)
        for name, attacked in (
            ("bim", bim(net, images, labels, eps=EPS)),
            ("bpda", bpda(net, images, labels, purify=purify, eps=EPS, steps=12)),
        )
    }
    assert left["bpda"] < left["bim"] - 0.1


def test_batches_and_modes_do_not_matter(images, labels):
    net = small_net()
    expected = bpda(net, images, labels, purify=quantise, eps=EPS, steps=10)
    assert torch.equal(bpda(net, images, labels, purify=quantise, eps=EPS, steps=10, batch_size=7), expected)
    with torch.inference_mode():
        again = bpda(net, images.clone(), labels.clone(), purify=quantise, eps=EPS, steps=10)
    assert torch.equal(again, expected)


def test_predicted_labels_are_those_of_the_unpurified_images(images):
    net, purify = small_net(), quantise
    predicted = predict(net, images)
    other = (predicted + 1) % 10
    out = bpda(net, images, other, purify=purify, eps=EPS, steps=5, label_source="predicted")
    assert torch.equal(out, bpda(net, images, predicted, purify=purify, eps=EPS, steps=5))
    assert not torch.equal(out, images)


def test_leaves_no_trace(images, labels):
    net = small_net()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    bpda(net, images, labels, purify=quantise, eps=EPS, steps=3)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters()) and not net.training


def test_no_images():
    none = torch.zeros(0, 1, 8, 8, dtype=torch.uint8)
    out = bpda(small_net(), none, torch.zeros(0, dtype=torch.int64), purify=quantise, eps=EPS)
    assert out.shape == (0, 1, 8, 8) and out.dtype == torch.uint8


BAD = {
    "no purifier": ({"purify": None}, TypeError, "callable"),
    "floats from purify": ({"purify": lambda x: x / 255}, TypeError, "purify's result"),
    "another shape from purify": ({"purify": lambda x: x[:, :, :4]}, ValueError, "keep the shape"),
    "no steps": ({"steps": 0}, ValueError, "steps"),
    "half a step": ({"step_size": 0.5}, TypeError, "step_size"),
    "eps negative": ({"eps": -1}, ValueError, "eps"),
    "eps a float": ({"eps": 8.0}, TypeError, "eps"),
    "label source": ({"label_source": "random"}, ValueError, "predicted, true"),
    "batch size": ({"batch_size": 0}, ValueError, "batch_size"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD)
def test_bad_options_are_refused(change, error, message, images, labels):
    with pytest.raises(error, match=message):
        bpda(small_net(), images, labels, **{"purify": quantise, "eps": EPS, **change})


def test_bad_networks_images_and_labels_are_refused(images, labels):
    options = {"purify": quantise, "eps": EPS}
    with pytest.raises(ValueError, match="training mode"):
        bpda(small_net().train(), images, labels, **options)
    with pytest.raises(TypeError, match="uint8"):
        bpda(small_net(), images / 255, labels, **options)
    with pytest.raises(ValueError, match="one per image"):
        bpda(small_net(), images, labels[:3], **options)
