"""Our attacks against other people's: Foolbox and torchattacks, on the shipped Fashion-MNIST networks and real images.

Each library is skipped where it is not installed; `make test` installs both.
"""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from pixeldefend import load_classifier, load_images, predict
from pixeldefend.attacks import ATTACKS, bim, bim_iterations, carlini_wagner, clipped, deepfool_crossing, fgsm, to_levels
from pixeldefend.scaling import to_unit

LIBRARIES = ("foolbox", "torchattacks")
EPS = (2, 4, 8, 16, 25)
COUNT = 32  # a power of two: torchattacks' loss is the mean over the batch, and dividing by this one rounds nothing


def imported(library: str):
    """The library, or a skipped test; pytest ignores the warnings of such an import. Foolbox needs the command git too."""
    return pytest.importorskip(library, exc_type=ImportError)


def sign_attack(library: str, name: str, net: nn.Module, pixels: Tensor, labels: Tensor, eps: int) -> Tensor:
    """The library's FGSM, or its BIM with our number of steps of one level: floats in [0, 1]."""
    module, steps = imported(library), {"steps": bim_iterations(eps)} if name == "bim" else {}
    if library == "torchattacks":
        attack = module.FGSM(net, eps=eps / 255) if name == "fgsm" else module.BIM(net, eps / 255, alpha=1 / 255, **steps)
        return attack(pixels, labels).detach()
    if name == "fgsm":
        attack = module.attacks.LinfFastGradientAttack(random_start=False)
    else:
        attack = module.attacks.LinfBasicIterativeAttack(abs_stepsize=1 / 255, random_start=False, **steps)
    return attack(foolbox_model(net), pixels, module.criteria.Misclassification(labels), epsilons=eps / 255)[0]


def foolbox_model(net: nn.Module):
    return imported("foolbox").PyTorchModel(net, bounds=(0, 1), device="cpu")  # its default is a GPU, if there is one


def nearest_levels(pixels: Tensor) -> Tensor:
    return (pixels * 255).round().to(torch.uint8)


@cache
def network(name: str) -> nn.Module:
    return load_classifier("fashion-mnist", name).requires_grad_(False)


@cache
def first_images(count: int) -> tuple[Tensor, Tensor]:
    data = load_images("fashion-mnist", "test", limit=count)
    return data.images, data.labels


class LeftHalf(nn.Module):
    """A network that does not see the right half of an image: there the gradient is exactly zero."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(nn.functional.pad(pixels[..., :14], (0, 14)))


class AtLevels(nn.Module):
    """The network at the nearest image of whole levels; the gradient there is passed on as it is."""

    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, pixels: Tensor) -> Tensor:
            return (pixels * 255).round() / 255

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            return gradient

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(self.Round.apply(pixels))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("source", ["true", "predicted"])
@pytest.mark.parametrize("eps", [8, 25])
@pytest.mark.parametrize("name", ["resnet", "vgg", "half blind"])
def test_fgsm_to_the_last_integer(name, eps, source, library):
    """Every sub-pixel: the same image, the same network and the same batch give the same gradient, float noise and all.

    So nothing is left out. Where the gradient is exactly zero all three leave the sub-pixel as it is.
    """
    net = LeftHalf(network("resnet")).eval() if name == "half blind" else network(name)
    images, labels = first_images(COUNT)
    predicted = predict(net, images)
    assert (predicted != labels).any(), "true and predicted labels are to make a difference"
    ours = fgsm(net, images, labels, eps=eps, label_source=source, batch_size=COUNT)
    chosen = labels if source == "true" else predicted
    theirs = sign_attack(library, "fgsm", net, to_unit(images), chosen, eps)
    assert torch.equal(nearest_levels(theirs), ours)
    assert (ours.int() - images.int()).abs().max() == eps
    assert torch.equal(ours[..., 14:], images[..., 14:]) == (name == "half blind")


@cache
def our_bim(name: str, eps: int, count: int) -> Tensor:
    images, labels = first_images(count)
    return bim(network(name), images, labels, eps=eps, label_source="true", batch_size=count)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name, eps", [("resnet", 8), ("vgg", 8), ("vgg", 25)])
def test_bim_to_the_last_integer(name, eps, library):
    """Every sub-pixel, after as many as 29 steps.

    The libraries keep their iterates as floats, whose errors grow with every step. A gradient as small as its own float
    noise may then get another sign, and from there the iterates part. So they attack the network `AtLevels`, where the
    same levels are the same image; what they do with its gradient is theirs.
    """
    images, labels = first_images(COUNT // 2)
    theirs = sign_attack(library, "bim", AtLevels(network(name)).eval(), to_unit(images), labels, eps)
    ours = our_bim(name, eps, COUNT // 2)
    assert torch.equal(nearest_levels(theirs), ours)
    assert (theirs * 255 - ours).abs().max() < 1e-3, "theirs are whole levels, too"
    assert (ours.int() - images.int()).abs().max() == eps
    assert not torch.equal(ours, ATTACKS["fgsm"](network(name), images, labels, eps=eps, label_source="true"))


@cache
def recognised_images(name: str, count: int) -> tuple[Tensor, Tensor]:
    """The first test images that the network gets right."""
    images, labels = first_images(count + 10)
    rows = torch.nonzero(predict(network(name), images) == labels)[:count, 0]
    assert len(rows) == count
    return images[rows], labels[rows]


@cache
def deepfool_successes(name: str) -> dict[tuple[str, str], list[int]]:
    """Of 50 images, how many are misclassified within each eps: (whose, floats or integers) -> numbers."""
    foolbox, net, (images, labels) = imported("foolbox"), network(name), recognised_images(name, 50)
    attack = foolbox.attacks.LinfDeepFoolAttack(steps=50, overshoot=0.02)
    criterion = foolbox.criteria.Misclassification(labels)
    theirs, _, success = attack(foolbox_model(net), to_unit(images), criterion, epsilons=[eps / 255 for eps in EPS])
    numbers = {("theirs", "floats"): success.sum(dim=1).tolist()}
    ours = deepfool_crossing(net, images, labels)
    with torch.no_grad():
        within = [net(clipped(ours, images, eps=eps)).argmax(dim=1) for eps in EPS]
    numbers["ours", "floats"] = [(predicted != labels).sum().item() for predicted in within]
    for whose, found in (("ours", ours), ("theirs", theirs[0])):
        within = [predict(net, to_levels(found, images, eps=eps)) for eps in EPS]
        numbers[whose, "integers"] = [(predicted != labels).sum().item() for predicted in within]
    return numbers


@pytest.mark.parametrize("name", ["resnet", "vgg"])
@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_deepfool_succeeds_as_often_as_foolbox_s_at_every_eps(kind, name):
    """Like with like: floats with floats, and integers with what rounding outward makes of Foolbox's floats.

    Integers lose something against floats, Foolbox's as well as ours.
    """
    numbers = deepfool_successes(name)
    assert all(ours >= theirs for ours, theirs in zip(numbers["ours", kind], numbers["theirs", kind], strict=True))


@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_deepfool_s_success_grows_with_eps(kind):
    ours = deepfool_successes("vgg")["ours", kind]
    assert ours == sorted(ours)
    assert 5 <= ours[0] <= 15 and ours[-1] >= 35


@pytest.mark.parametrize("eps", [2, 3, 4])
def test_tuned_carlini_wagner_succeeds_as_often_as_apgd(eps):
    """Auto-PGD, 50 steps from each of two random starts, its result rounded to levels, against ours at the same eps.

    That is where they fool some of the images but not all. With which random starts Auto-PGD is given it finds one image
    more or less; on 50 images ours fooled as many as the best of eight seeds at eps 2.
    """
    count, net, (images, labels) = 16, network("resnet"), recognised_images("resnet", 16)
    attack = imported("torchattacks").APGD(net, eps=eps / 255, steps=50, n_restarts=2, seed=0)
    with torch.random.fork_rng(devices=[]):  # it seeds the global generator
        theirs = nearest_levels(attack(to_unit(images), labels))
    assert (theirs.int() - images.int()).abs().max() == eps
    ours = carlini_wagner(net, images, labels, eps=eps, setting="tuned")
    fooled = {whose: (predict(net, found) != labels).sum().item() for whose, found in (("ours", ours), ("theirs", theirs))}
    assert count > fooled["ours"] >= fooled["theirs"] >= count // 4
