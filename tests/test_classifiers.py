"""Classifiers: standardisation, the ResNet of appendix C.1, prediction, and weights on disk."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from pixeldefend import paths
from pixeldefend.classifiers import ResNet, accuracy, load_classifier, predict, save_classifier, saved_classifiers
from pixeldefend.classifiers.inference import predict_pixels
from pixeldefend.classifiers.resnet import Activation
from pixeldefend.classifiers.standardise import standardise
from pixeldefend.classifiers.store import SIZES, build_classifier, rounded
from pixeldefend.images import DATA_SETS, load_images
from pixeldefend.scaling import to_unit
from pixeldefend.weights import SUMS, write_checksums

NAMES = {"data_set": "fashion-mnist", "network": "resnet", "training": "normal"}


def tiny(units: int = 2) -> ResNet:
    """A small network with running statistics that are not those of a new one."""
    model = ResNet(channels=1, width=2, units=units)
    generator = torch.Generator().manual_seed(0)
    model.reset_parameters(generator)
    for module in model.modules():
        if isinstance(module, Activation):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5, generator=generator)
    return model.eval()


@pytest.fixture
def images(generator):
    return torch.randint(0, 256, (7, 1, 8, 8), generator=generator, dtype=torch.uint8)


# standardisation


def test_standardised_images_have_mean_zero_and_deviation_one(generator):
    x = torch.rand(5, 3, 8, 8, generator=generator) * torch.tensor([1, 0.5, 0.1, 0.01, 0.001]).view(5, 1, 1, 1)
    y = standardise(x).double()
    assert torch.allclose(y.mean((1, 2, 3)), torch.zeros(5, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(y.std((1, 2, 3), correction=0), torch.ones(5, dtype=torch.float64), atol=1e-4)


def test_standardisation_ignores_contrast_and_brightness(generator):
    x = torch.rand(2, 1, 28, 28, generator=generator)
    assert torch.allclose(standardise(x), standardise(0.25 * x + 0.5), atol=1e-5)


def test_floor_is_that_of_levels_with_three_channels():
    """One level at one pixel passes the floor, a tenth of it does not and is divided by 1 / (255 sqrt(3 H W))."""
    for level, deviation in ((1.0, math.sqrt(783) / 784 / 255), (0.1, 1 / (255 * math.sqrt(3 * 784)))):
        x = torch.zeros(1, 1, 28, 28, dtype=torch.float64)
        x[0, 0, 3, 3] = level / 255
        assert standardise(x)[0, 0, 3, 3].item() == pytest.approx(level / 255 * (1 - 1 / 784) / deviation, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_images_become_zero_with_finite_gradients(value):
    x = torch.full((1, 1, 28, 28), value, requires_grad=True)
    y = standardise(x)
    assert y.abs().max() < 0.01
    y[0, 0, 5, 5].backward()
    assert x.grad.isfinite().all()


def test_gradient_flows_through_mean_and_deviation(generator):
    x = torch.rand(2, 1, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(standardise, x)


# the network


@pytest.mark.parametrize("data_set, count", [("fashion-mnist", 60_374), ("cifar10", 950_234)])
def test_size_of_the_papers_networks(data_set, count):
    model = build_classifier("resnet", SIZES[data_set, "resnet"])
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(p.numel() for p in model.parameters()) == count
    assert len(layers) == 62
    assert all(layer.bias is None for layer in layers[:-1])
    pixels = torch.zeros(2, *DATA_SETS[data_set].shape)
    assert model.eval()(pixels).shape == (2, 10)


def test_norm_constants():
    norms = [m for m in ResNet(channels=1, width=4).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 61
    assert {(n.eps, n.momentum) for n in norms} == {(1e-3, 0.01)}


def test_initial_weights():
    model = ResNet(channels=3, width=16)
    model.reset_parameters(torch.Generator().manual_seed(0))
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 2000):
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * conv.out_channels)), rel=0.1)
    again = ResNet(channels=3, width=16)
    again.reset_parameters(torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def by_hand(model: ResNet, pixels):
    """Appendix C.1 written out again, one unit per stage."""

    def activate(layer, x):
        shape = (1, -1, 1, 1)
        x = (x - layer.running_mean.view(shape)) / (layer.running_var.view(shape) + 1e-3).sqrt()
        x = x * layer.weight.view(shape) + layer.bias.view(shape)
        return torch.where(x > 0, x, 0.1 * x)

    flat = pixels.flatten(1)
    x = (flat - flat.mean(1, keepdim=True)) / flat.std(1, correction=0, keepdim=True)
    x = F.conv2d(x.view(pixels.shape), model.first.weight, padding=1)
    for unit, stride in zip(model.units, (1, 2, 2), strict=True):
        a = activate(unit.activation_1, x)
        h = activate(unit.activation_2, F.conv2d(a, unit.convolution_1.weight, stride=stride, padding=1))
        h = F.conv2d(h, unit.convolution_2.weight, padding=1)
        if stride == 1:
            x = a + h  # the first unit of the network
        else:
            n, c, height, width = x.shape
            pooled = x.view(n, c, height // 2, 2, width // 2, 2).mean((3, 5))
            zeros = torch.zeros(n, c // 2, height // 2, width // 2)
            x = torch.cat([zeros, pooled, zeros], dim=1) + h
    x = activate(model.last_activation, x).flatten(2).mean(2)
    return x @ model.classify.weight.T + model.classify.bias


def test_forward_pass_by_hand(images):
    model, pixels = tiny(units=1), to_unit(images)
    with torch.no_grad():
        assert torch.allclose(model(pixels), by_hand(model, pixels), atol=1e-5)


@pytest.mark.parametrize("name", ["channels", "width", "units"])
@pytest.mark.parametrize("value, kind", [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_impossible_sizes_are_refused(name, value, kind):
    with pytest.raises(kind, match=name):
        ResNet(**{"channels": 1, "width": 2, "units": 1, name: value})


# prediction


class FirstPixel(nn.Module):
    """Predicts the level of the first pixel; it has no parameters."""

    def forward(self, pixels):
        return F.one_hot((pixels[:, 0, 0, 0] * 255).round().long(), 10).float()


def test_predict_and_accuracy(images):
    images[:, 0, 0, 0] = labels = torch.tensor([3, 1, 4, 1, 5, 9, 2])
    model = FirstPixel().eval()
    for size in (1, 3, 500):
        predicted = predict(model, images, batch_size=size)
        assert predicted.dtype == torch.int64
        assert torch.equal(predicted, labels)
    labels = labels.clone()
    labels[:2] = 0
    assert accuracy(model, images, labels) == 5 / 7
    assert predict(model, images[:0]).shape == (0,)


def test_predictions_of_pixels_are_those_of_their_levels(images):
    model = tiny()
    assert torch.equal(predict_pixels(model, images / 255), predict(model, images))
    assert torch.equal(predict_pixels(model, images.double() / 255), predict(model, images))


def test_prediction_does_not_depend_on_the_batch(images):
    model = tiny()
    assert torch.equal(predict(model, images, batch_size=2), predict(model, images))


BAD_PREDICTIONS = {
    "float images": (lambda i: predict(tiny(), i.float()), TypeError, "uint8"),
    "too many channels": (lambda i: predict(tiny(), i.expand(-1, 3, -1, -1)), ValueError, "(1, H, W)"),
    "odd sides": (lambda i: predict(tiny(), i[..., :6, :6]), ValueError, "(1, 6, 6)"),
    "pixels as levels": (lambda i: predict_pixels(tiny(), i), TypeError, "floating-point"),
    "pixels up to 255": (lambda i: predict_pixels(tiny(), i.float()), ValueError, "[0, 1], found"),
    "pixels below 0": (lambda i: predict_pixels(tiny(), i / 255 - 0.01), ValueError, "found -0.0"),
    "pixels, nan": (lambda i: predict_pixels(tiny(), i / 255 + math.nan), ValueError, "nan"),
    "pixels, three axes": (lambda i: predict_pixels(tiny(), i[0] / 255), ValueError, "(N, C, H, W)"),
    "training mode": (lambda i: predict(tiny().train(), i), ValueError, "training mode"),
    "batch size 0": (lambda i: predict(tiny(), i, batch_size=0), ValueError, "at least 1"),
    "nine classes": (lambda i: predict(nn.Sequential(nn.Flatten(), nn.Linear(64, 9)).eval(), i), ValueError, "(7, 10)"),
    "float labels": (lambda i: accuracy(tiny(), i, torch.zeros(7)), TypeError, "int64"),
    "too few labels": (lambda i: accuracy(tiny(), i, torch.zeros(6).long()), ValueError, "(7,)"),
    "no images": (lambda i: accuracy(tiny(), i[:0], torch.zeros(0).long()), ValueError, "at least one"),
}


@pytest.mark.parametrize("call, kind, mention", BAD_PREDICTIONS.values(), ids=BAD_PREDICTIONS)
def test_prediction_refuses(call, kind, mention, images):
    with pytest.raises(kind) as caught:
        call(images)
    assert mention in str(caught.value)


# weights on disk


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "a-log").write_text('{"step": 50}\n')
    root = tmp_path / "classifiers"
    save_classifier(tiny(), **NAMES, scores={"test_accuracy": 0.5}, log=tmp_path / "a-log", root=root)
    return root


FOLDER = "fashion-mnist-resnet-normal"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_save_and_load(dtype, tmp_path, images):
    model = tiny()
    folder = save_classifier(model, **NAMES, scores={}, root=tmp_path, dtype=dtype)
    loaded = load_classifier("fashion-mnist", "resnet", training="normal", root=tmp_path)
    assert folder == tmp_path / FOLDER
    assert not loaded.training and all(p.dtype == torch.float32 for p in loaded.parameters())
    expected = model if dtype == torch.float32 else rounded(model, dtype)
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in loaded.state_dict().items())
    with torch.no_grad():
        difference = (loaded(to_unit(images)) - model(to_unit(images))).abs().max()
    assert difference <= (1e-6 if dtype == torch.float32 else 0.02)


def test_what_lies_beside_the_weights(saved):
    config = json.loads((saved / FOLDER / "config.json").read_text())
    assert config == {**NAMES, "size": {"channels": 1, "width": 2, "units": 2}, "settings": {}}
    assert json.loads((saved / FOLDER / "scores.json").read_text()) == {"test_accuracy": 0.5}
    assert (saved / FOLDER / "log.jsonl").read_text() == '{"step": 50}\n'
    assert saved_classifiers(saved) == [FOLDER]


@pytest.mark.parametrize("change", [{"data_set": "mnist"}, {"network": "vgg"}, {"training": "adversarial-fgsm"}],
                         ids=["data set", "network", "training"])
def test_unknown_names_list_what_exists(change, saved):
    with pytest.raises(ValueError, match=f"those that exist: {FOLDER}$"):
        load_classifier(**{**NAMES, **change}, root=saved)


def test_no_classifiers_at_all(tmp_path):
    with pytest.raises(ValueError, match="none in"):
        load_classifier("fashion-mnist", "resnet", root=tmp_path / "nowhere")


def take_from_other_network(path):
    other = save_classifier(tiny(units=1), **NAMES, scores={}, root=path.parents[1] / "other")
    path.write_bytes((other / path.name).read_bytes())


DAMAGE = {  # what happens to a file
    "weights missing": ("model.safetensors", lambda path: path.unlink(), FileNotFoundError),
    "weights cut off": ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-10]), ValueError),
    "weights scrambled": ("model.safetensors", lambda path: path.write_bytes(b"\xff" * 50), ValueError),
    "weights of another network": ("model.safetensors", take_from_other_network, ValueError),
    "config missing": ("config.json", lambda path: path.unlink(), FileNotFoundError),
    "config cut off": ("config.json", lambda path: path.write_bytes(path.read_bytes()[:-10]), ValueError),
    "config scrambled": ("config.json", lambda path: path.write_bytes(b"\xff" * 50), ValueError),
    "config a list": ("config.json", lambda path: path.write_text("[]"), ValueError),
    "config without a size": ("config.json", lambda path: path.write_text('{"network": "resnet"}'), ValueError),
    "config of width 0": ("config.json", lambda path: path.write_text(config(width=0)), ValueError),
    "config of an unknown size": ("config.json", lambda path: path.write_text(config(depth=3)), ValueError),
    "config of an unknown network": ("config.json", lambda path: path.write_text(config("lenet")), ValueError),
}


def config(network="resnet", **size) -> str:
    return json.dumps({"network": network, "size": {"channels": 1, "width": 2, **size}})


@pytest.mark.parametrize("rehashed", [False, True], ids=["hashes", "hashes of the damage"])
@pytest.mark.parametrize("file, damage, kind", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_named_in_one_line(file, damage, kind, rehashed, saved):
    path = saved / FOLDER / file
    damage(path)
    if rehashed:
        write_checksums(path.parent)
    with pytest.raises(kind) as caught:
        load_classifier("fashion-mnist", "resnet", root=saved)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_bit_is_noticed_by_the_hash(saved):
    path = saved / FOLDER / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256") as caught:
        load_classifier("fashion-mnist", "resnet", root=saved)
    assert str(path) in str(caught.value)


def test_missing_hashes_are_named(saved):
    (saved / FOLDER / SUMS).unlink()
    with pytest.raises(FileNotFoundError, match=SUMS):
        load_classifier("fashion-mnist", "resnet", root=saved)


def test_weights_that_are_not_finite_are_not_loaded(saved):
    path = saved / FOLDER / "model.safetensors"
    weights = load_file(path)
    weights["classify.bias"][3] = math.nan
    save_file(weights, path)
    write_checksums(path.parent)
    with pytest.raises(ValueError, match="not finite"):
        load_classifier("fashion-mnist", "resnet", root=saved)


def test_weights_that_the_file_cannot_hold_are_not_saved(tmp_path):
    model = tiny()
    model.classify.bias.data[3] = 1e6  # finite in float32, not in float16
    with pytest.raises(ValueError, match="classify.bias"):
        save_classifier(model, **NAMES, scores={}, root=tmp_path)
    assert saved_classifiers(tmp_path) == []


def test_unknown_network_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="resnet, vgg"):
        save_classifier(tiny(), **{**NAMES, "network": "lenet"}, scores={}, root=tmp_path)


def test_shipped_classifier_is_as_good_as_its_scores_say():
    model = load_classifier("fashion-mnist", "resnet", training="normal")
    scores = json.loads((paths.WEIGHTS / "classifiers" / FOLDER / "scores.json").read_text())
    test = load_images("fashion-mnist", "test", limit=1000)
    assert scores["test_images"] == 10_000
    assert scores["test_accuracy"] > 0.91
    # 1,000 of the 10,000 images: three standard errors
    assert accuracy(model, test.images, test.labels) == pytest.approx(scores["test_accuracy"], abs=0.027)
