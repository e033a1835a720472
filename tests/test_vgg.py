"""The VGG of appendix C.2: its table, the order of its layers, initial weights, training and weights on disk."""

import math

import pytest
import torch
import torch.nn.functional as F
from nets import random_images
from torch import nn

from pixeldefend.classifiers import VGG, load_classifier, predict, save_classifier
from pixeldefend.classifiers.standardise import standardise
from pixeldefend.classifiers.store import SIZES, build_classifier, rounded
from pixeldefend.classifiers.training import ClassifierJob, Recipe
from pixeldefend.images import DATA_SETS
from pixeldefend.scaling import to_unit

SIZE = {"channels": 1, "width": 1, "side": 16}
BLOCKS = (2, 2, 3, 3)  # convolutions
TABLE = {  # the paper's: feature maps of each block, dense units, parameters
    "cifar10": ((16, 128, 512, 512), 512, 13_615_866),
    "fashion-mnist": ((4, 32, 128, 128), 128, 804_174),
}


def tiny() -> VGG:
    """A small network with running statistics that are not those of a new one."""
    model = VGG(**SIZE)
    generator = torch.Generator().manual_seed(0)
    model.reset_parameters(generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return model.eval()


@pytest.fixture
def images():
    return random_images(6, 1, 16, 16)


@pytest.mark.parametrize("data_set", TABLE)
def test_the_papers_networks(data_set):
    maps, dense, count = TABLE[data_set]
    model = build_classifier("vgg", SIZES[data_set, "vgg"])
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    expected = [n for n, times in zip(maps, BLOCKS, strict=True) for _ in range(times)]
    assert [c.out_channels for c in convolutions] == expected
    assert all(c.kernel_size == (3, 3) and c.stride == (1, 1) and c.bias is None for c in convolutions)
    assert model.hidden.out_features == dense
    assert sum(p.numel() for p in model.parameters()) == count
    with torch.no_grad():
        pixels = torch.zeros(1, *DATA_SETS[data_set].shape)
        assert model.eval()(pixels).shape == (1, 10)


@pytest.mark.parametrize("data_set, sides", [("cifar10", [16, 8, 4, 2]), ("fashion-mnist", [14, 7, 3, 1])])
def test_sides_after_each_pooling(data_set, sides):
    model, seen = VGG(**{**SIZES[data_set, "vgg"], "width": 1}).eval(), []
    for module in model.features:
        if isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(lambda *call: seen.append(call[-1].shape[-1]))
    model(torch.zeros(1, *DATA_SETS[data_set].shape))
    assert seen == sides


def test_norm_constants():
    norms = [m for m in VGG(**SIZE).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == sum(BLOCKS)
    assert {(n.eps, n.momentum) for n in norms} == {(1e-3, 0.01)}


def test_initial_weights():
    model, again = VGG(channels=3, width=4, side=16), VGG(channels=3, width=4, side=16)
    for net in (model, again):
        net.reset_parameters(torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    for layer in (m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.weight.numel() > 1000):
        gain = 1 if layer is model.classify else 2
        assert layer.weight.std().item() == pytest.approx(math.sqrt(gain / layer.weight[0].numel()), rel=0.1)
    assert not model.hidden.bias.any() and not model.classify.bias.any()


def by_hand(model: VGG, pixels):
    """Appendix C.2 written out again: convolution, normalisation, ReLU; pooling; dense layers without dropout."""
    x = standardise(pixels)
    convolutions = [(m[0], m[1]) for m in model.features if isinstance(m, nn.Sequential)]
    for times in BLOCKS:
        for _ in range(times):
            convolution, norm = convolutions.pop(0)
            x = F.conv2d(x, convolution.weight, padding=1)
            x = (x - norm.running_mean.view(1, -1, 1, 1)) / (norm.running_var.view(1, -1, 1, 1) + 1e-3).sqrt()
            x = (x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)).clamp(min=0)
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).amax((3, 5))
    h = (x.flatten(1) @ model.hidden.weight.T + model.hidden.bias).clamp(min=0)
    return h @ model.classify.weight.T + model.classify.bias


def test_forward_pass_by_hand(images):
    model, pixels = tiny(), to_unit(images)
    with torch.no_grad():
        assert torch.allclose(model(pixels), by_hand(model, pixels), atol=1e-5)
        assert model(pixels).std() > 0.01


def test_dropout_before_both_dense_layers_and_only_in_training(images):
    model, pixels = tiny(), to_unit(images)
    seen = {}
    for name in ("hidden", "classify"):
        getattr(model, name).register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    with torch.no_grad():
        model(pixels)
        kept = {name: (value != 0).double().mean() for name, value in seen.items()}
        torch.manual_seed(0)
        for norm in (m for m in model.train().modules() if isinstance(m, nn.BatchNorm2d)):
            norm.eval()
        model(pixels)
        for name, value in seen.items():
            assert 0.3 * kept[name] < (value != 0).double().mean() < 0.7 * kept[name]


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_two_steps_of_training(images, bfloat16):
    """Through the job that trains every classifier: all parameters move and stay finite."""
    model = VGG(**SIZE)
    torch.manual_seed(0)
    job = ClassifierJob(model, images, torch.arange(6), Recipe(steps=10, bfloat16=bfloat16))
    before = [p.detach().clone() for p in model.parameters()]
    measured = [job.step(torch.arange(6), step) for step in range(2)]
    assert all(math.isfinite(m["loss"]) for m in measured)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_it_learns():
    """Ten easy classes, a bright bar at one of ten places on noise, dropout and all."""
    images, labels = random_images(80, 1, 16, 16) // 4, torch.arange(80) % 10
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 3 * (label // 2) : 3 * (label // 2) + 3, 8 * (label % 2) : 8 * (label % 2) + 8] = 255
    torch.manual_seed(0)
    recipe = Recipe(steps=20, flip=False, bfloat16=False, learning_rate=0.02)
    job = ClassifierJob(VGG(channels=1, width=4, side=16), images, labels, recipe)
    losses = [job.step(torch.arange(80), step)["loss"] for step in range(20)]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_save_and_load(tmp_path, images):
    model = tiny()
    save_classifier(model, data_set="fashion-mnist", network="vgg", training="normal", scores={}, root=tmp_path)
    loaded = load_classifier("fashion-mnist", "vgg", root=tmp_path)
    assert isinstance(loaded, VGG) and not loaded.training
    expected = rounded(model).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    assert torch.equal(predict(loaded, images), predict(rounded(model), images))


@pytest.mark.parametrize("change, kind, mention", [
    ({"channels": 0}, ValueError, "channels"), ({"width": 1.5}, TypeError, "width"), ({"width": True}, TypeError, "width"),
    ({"side": 0}, ValueError, "side"), ({"side": 15}, ValueError, "at least 16"), ({"side": "28"}, TypeError, "side"),
])
def test_impossible_sizes_are_refused(change, kind, mention):
    with pytest.raises(kind, match=mention):
        VGG(**{**SIZE, **change})


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 32, 32), (1, 16, 8)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(1, 16, 16\)"):
        predict(tiny(), torch.zeros(2, *shape, dtype=torch.uint8))
