"""The two stages of DeepFool and Carlini-Wagner: the search, whatever eps, and what makes integer images of its result."""

import inspect

import pytest
import torch
from test_deepfool import random_net

from pixeldefend import predict
from pixeldefend.attacks import ATTACKS, SEARCHES, clipped, to_levels
from pixeldefend.checks import CLASSES
from pixeldefend.scaling import to_unit

N = 12


@pytest.fixture
def images(generator):
    return torch.randint(0, 256, (N, 1, 4, 4), generator=generator, dtype=torch.uint8)


@pytest.fixture(params=SEARCHES)
def name(request):
    return request.param


@pytest.fixture
def found(images, generator):
    """Up to 40 levels away, and not moved at all at one pixel in four."""
    change = 80 * torch.rand(images.shape, generator=generator) - 40
    still = torch.rand(images.shape, generator=generator) < 0.25
    return torch.where(still, to_unit(images), (to_unit(images) + change / 255).clamp(0, 1))


@pytest.mark.parametrize("rounding", ["outward", "nearest"])
@pytest.mark.parametrize("source", ["true", "predicted"])
def test_two_stages_are_the_attack_at_every_eps(name, rounding, source, images):
    net = random_net()
    labels = predict(net, images)
    labels[:3] = (labels[:3] + 1) % CLASSES  # misclassified
    found = SEARCHES[name](net, images, labels, label_source=source, batch_size=5)
    for eps in (0, 1, 7, 64, 255):
        whole = ATTACKS[name](net, images, labels, eps=eps, label_source=source, rounding=rounding)
        assert torch.equal(to_levels(found, images, eps=eps, rounding=rounding), whole)
        assert torch.equal(whole[:3], images[:3]) == (source == "true" or eps == 0)
    assert not torch.equal(whole, images)


def test_a_search_gives_floats_in_range_and_knows_no_eps(name, images):
    net = random_net()
    labels = predict(net, images)
    found = SEARCHES[name](net, images, labels)
    assert found.dtype == torch.float32 and found.shape == images.shape and not found.requires_grad
    assert found.min() >= 0 and found.max() <= 1
    change = (found - to_unit(images)).abs() * 255
    assert change.max() > 3
    assert ((change - change.round()).abs() > 0.1).any(), "not rounded"
    assert not {"eps", "rounding"} & set(inspect.signature(SEARCHES[name]).parameters)


def test_a_search_s_default_label_source_is_its_attack_s(name):
    sources = [inspect.signature(table[name]).parameters["label_source"].default for table in (ATTACKS, SEARCHES)]
    assert sources[0] == sources[1]


def test_a_misclassified_image_stays_as_it_is(name, images):
    net = random_net()
    labels = (predict(net, images) + 1) % CLASSES
    found = SEARCHES[name](net, images, labels, label_source="true")
    assert (found - to_unit(images)).abs().max() < 1e-3 / 255
    for rounding in ("outward", "nearest"):
        assert torch.equal(to_levels(found, images, eps=255, rounding=rounding), images)


def test_no_images(name):
    found = SEARCHES[name](random_net(), torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    assert found.shape == (0, 1, 4, 4) and found.dtype == torch.float32
    assert to_levels(found, torch.zeros(0, 1, 4, 4, dtype=torch.uint8), eps=8).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("clean, found, eps, outward, nearest", [
    (100, 102.3, 255, 103, 102), (100, 97.7, 255, 97, 98), (100, 102.7, 255, 103, 103), (100, 102.3, 2, 102, 102),
    (100, 97.2, 2, 98, 98), (100, 100.0005, 255, 100, 100), (100, 102.9995, 255, 103, 103), (100, 103.0005, 255, 103, 103),
    (100, 150.0, 0, 100, 100), (0, 0.4, 8, 1, 0), (255, 254.6, 8, 254, 255), (0, 255.0, 255, 255, 255), (7, 0.0, 8, 0, 0),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_level(clean, found, eps, outward, nearest, dtype):
    """"outward" forgives a thousandth of a level, which is float32's error, not the attack's."""
    images = torch.full((1, 1, 1, 1), clean, dtype=torch.uint8)
    floats = torch.full((1, 1, 1, 1), found / 255, dtype=dtype)
    levels = {rounding: to_levels(floats, images, eps=eps, rounding=rounding) for rounding in ("outward", "nearest")}
    assert {rounding: level.item() for rounding, level in levels.items()} == {"outward": outward, "nearest": nearest}
    assert all(level.dtype == torch.uint8 for level in levels.values())
    assert torch.equal(to_levels(floats, images, eps=eps), levels["outward"])


@pytest.mark.parametrize("eps", [0, 1, 8, 39, 255])
def test_clipped_is_within_eps_and_leaves_what_is(eps, images, found):
    out, clean = clipped(found, images, eps=eps), to_unit(images)
    assert out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1
    assert ((out - clean).abs() * 255).max() <= eps + 1e-4
    inside = (found - clean).abs() * 255 < eps - 1e-4
    assert torch.equal(out[inside], found[inside])
    beyond = (found - clean).abs() * 255 > eps
    assert torch.equal((out - clean).sign()[beyond], (found - clean).sign()[beyond] * (eps > 0))
    assert (((out - clean).abs() * 255)[beyond] > eps - 1e-4).all()
    assert inside.any() == (eps > 0) and beyond.any() == (eps < 40)


@pytest.mark.parametrize("rounding", ["outward", "nearest"])
@pytest.mark.parametrize("eps", [0, 3, 20])
def test_rounding_what_is_clipped_is_the_same_as_clipping_what_is_rounded(rounding, eps, images, found):
    once = clipped(found, images, eps=eps)
    assert torch.equal(
        to_levels(once, images, eps=255, rounding=rounding), to_levels(found, images, eps=eps, rounding=rounding)
    )


BAD = {
    "integers": (lambda f, i: {"found": i}, TypeError, "not torch.uint8"),
    "half precision": (lambda f, i: {"found": f.half()}, TypeError, "float16"),
    "a list": (lambda f, i: {"found": f.tolist()}, TypeError, "not list"),
    "three axes": (lambda f, i: {"found": f[:, 0]}, ValueError, f"({N}, 4, 4)"),
    "fewer": (lambda f, i: {"found": f[1:]}, ValueError, f"({N - 1}, 1, 4, 4)"),
    "elsewhere": (lambda f, i: {"found": f.to("meta")}, ValueError, "found is on meta"),
    "levels": (lambda f, i: {"found": f * 255}, ValueError, "[0, 1]"),
    "negative": (lambda f, i: {"found": f - 1}, ValueError, "[0, 1]"),
    "NaN": (lambda f, i: {"found": torch.full_like(f, torch.nan)}, ValueError, "[0, 1]"),
    "float images": (lambda f, i: {"images": f}, TypeError, "images must be torch.uint8"),
    "eps a float": (lambda f, i: {"eps": 8.0}, TypeError, "eps"),
    "eps a bool": (lambda f, i: {"eps": True}, TypeError, "eps"),
    "eps negative": (lambda f, i: {"eps": -1}, ValueError, "0..255"),
    "eps 256": (lambda f, i: {"eps": 256}, ValueError, "0..255"),
}


@pytest.mark.parametrize("stage", [to_levels, clipped])
@pytest.mark.parametrize("change, kind, mention", BAD.values(), ids=BAD)
def test_bad_input(stage, change, kind, mention, found, images):
    arguments = {"found": found, "images": images, "eps": 8, **change(found, images)}
    with pytest.raises(kind) as caught:
        stage(arguments.pop("found"), arguments.pop("images"), **arguments)
    assert mention in str(caught.value)


def test_unknown_rounding(found, images):
    with pytest.raises(ValueError, match="nearest, outward"):
        to_levels(found, images, eps=8, rounding="none")
