"""Attacks: closed forms on a linear network, the eps ball at every level, strength on shipped networks, and bad input."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from pixeldefend.attacks import ATTACKS, SEARCHES, bim, bim_iterations, fgsm, rand
from pixeldefend.attacks._common import step_within
from pixeldefend.checks import CLASSES
from pixeldefend.classifiers import load_classifier, predict
from pixeldefend.images import load_images

SHAPE = (1, 4, 4)
SIGN_ATTACKS = {"fgsm": fgsm, "bim": bim}
GRADIENT_ATTACKS = {name: attack for name, attack in ATTACKS.items() if name != "rand"}
EVERY = ATTACKS | {f"search of {name}": search for name, search in SEARCHES.items()}
BAD_EPS = {
    "eps negative": (-1, ValueError), "eps 256": (256, ValueError), "eps a float": (8.0, TypeError),
    "eps a bool": (True, TypeError), "eps None": (None, TypeError),
}  # fmt: skip


def linear(seed: int = 0, bias: bool = True) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES, bias=bias)).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=generator)
    return net


def small_net() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Flatten(), nn.Linear(32, CLASSES)).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.0, 0.7, generator=generator)
    return net


@pytest.fixture
def images(generator):
    return torch.randint(0, 256, (12, *SHAPE), generator=generator, dtype=torch.uint8)


@pytest.fixture
def labels(generator):
    return torch.randint(0, CLASSES, (12,), generator=generator)


def run(name: str, net, images, labels, **options):
    if name == "rand":
        options.setdefault("generator", torch.Generator().manual_seed(0))
    if name not in ATTACKS:  # a search, which knows no eps
        options.pop("eps")
    return EVERY[name](net, images, labels, **options)


def two_class_weights(net: nn.Module, labels: torch.Tensor) -> torch.Tensor:
    """Keep only two classes apart, y and another, so that the gradient's sign is that of a difference of weights."""
    net[1].bias.data.fill_(-1e4)
    net[1].bias.data[:2] = 0
    return net[1].weight.data[1 - labels] - net[1].weight.data[labels]


@pytest.mark.parametrize("name", SIGN_ATTACKS)
@pytest.mark.parametrize("eps", [1, 2, 8, 25])
def test_closed_form_on_a_linear_network(name, eps, images):
    """With two classes the gradient is (1 - p_y) (w_other - w_y): both attacks go all the way along its sign."""
    net, labels = linear(), torch.arange(12) % 2
    direction = two_class_weights(net, labels).sign().view(12, *SHAPE)
    net[1].weight.data *= 0.01  # so that 1 - p_y does not round to zero
    expected = (images.long() + eps * direction.long()).clamp(0, 255)
    out = run(name, net, images, labels, eps=eps, label_source="true")
    assert out.dtype == torch.uint8
    assert torch.equal(out.long(), expected)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("eps", [0, 1, 8, 255])
def test_stays_in_the_ball_at_every_level(name, eps):
    images = torch.arange(256, dtype=torch.uint8).view(16, *SHAPE)
    before = images.clone()
    net = linear()
    out = run(name, net, images, predict(net, images), eps=eps)  # not all attacks move what is misclassified already
    assert out.dtype == torch.uint8 and out.shape == images.shape
    assert (out.int() - images.int()).abs().max() <= eps
    assert torch.equal(images, before)
    assert out.data_ptr() != images.data_ptr()
    assert (eps == 0) == torch.equal(out, images)


@pytest.mark.parametrize("direction", [-1, 1], ids=["down", "up"])
@pytest.mark.parametrize("eps", [1, 8, 25, 255])
def test_fgsm_moves_every_level_by_exactly_eps_or_to_the_end(direction, eps):
    """No level is off by one, wraps around or is left behind."""
    images = torch.arange(256, dtype=torch.uint8).view(16, *SHAPE)
    net = linear(bias=False)
    net[1].weight.data.zero_()
    net[1].weight.data[0] = -direction  # the loss of class 0 grows with `direction`
    out = fgsm(net, images, torch.zeros(16, dtype=torch.int64), eps=eps, label_source="true")
    assert torch.equal(out.long(), (images.long() + direction * eps).clamp(0, 255))


@pytest.mark.parametrize("start, clean, step, eps, end", [
    (100, 100, 9, 8, 108), (107, 100, 5, 8, 108), (93, 100, -5, 8, 92), (3, 3, -8, 8, 0), (250, 250, 8, 8, 255),
    (0, 0, -255, 255, 0), (255, 255, 255, 255, 255), (100, 100, 0, 8, 100),
])
def test_step_is_projected(start, clean, step, eps, end):
    as_image = [torch.full((1, 1, 1, 1), value, dtype=torch.uint8) for value in (start, clean)]
    assert step_within(*as_image, torch.full((1, 1, 1, 1), step, dtype=torch.int16), eps).item() == end


@pytest.mark.parametrize("eps, count", [(0, 0), (1, 1), (2, 2), (4, 5), (8, 10), (16, 20), (25, 29), (255, 259)])
def test_number_of_bim_steps(eps, count, images, labels):
    """The numbers that the paper's formula gives, and as many gradients as that."""
    net, calls = linear(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    bim(net, images, labels, eps=eps)
    assert bim_iterations(eps) == count
    assert len(calls) == count


def test_bim_follows_the_gradient_where_it_is(images, labels):
    """Equation by equation in float64, with the gradient at each iterate, not at the start."""
    net, eps = small_net().double(), 8
    x = images.double()
    for _ in range(10):
        x.requires_grad_()
        loss = nn.functional.cross_entropy(net(x / 255), labels, reduction="sum")
        x = x.detach() + torch.autograd.grad(loss, x)[0].sign()
        x = (x - images).clamp(-eps, eps).add(images).clamp(0, 255)
    # in float32 a gradient near zero may have the other sign
    out = bim(net.float(), images, labels, eps=eps)
    assert (out == x).double().mean() > 0.98
    assert not torch.equal(out, fgsm(net, images, labels, eps=eps, label_source="true"))


def test_zero_gradient_changes_nothing(images, labels):
    net = linear()
    net[1].weight.data.zero_()
    for attack in SIGN_ATTACKS.values():
        assert torch.equal(attack(net, images, labels, eps=8), images)


@pytest.mark.parametrize("name, default", [
    ("fgsm", "predicted"), ("bim", "true"), ("deepfool", "predicted"), ("carlini_wagner", "true"),
])
def test_label_source(name, default, images):
    """"predicted" is the same as giving the predictions as true labels; the defaults are the authors'."""
    net, attack = small_net(), ATTACKS[name]
    predicted = predict(net, images)
    labels = (predicted + 1) % CLASSES
    from_true = attack(net, images, labels, eps=8, label_source="true")
    from_predicted = attack(net, images, labels, eps=8, label_source="predicted")
    assert not torch.equal(from_true, from_predicted)
    assert torch.equal(from_predicted, attack(net, images, predicted, eps=8, label_source="true"))
    assert torch.equal(attack(net, images, labels, eps=8), {"true": from_true, "predicted": from_predicted}[default])


def test_bim_takes_as_many_steps_as_it_is_told(images, labels):
    """By default as many as in the paper; each is one level."""
    net = linear()
    few = bim(net, images, labels, eps=25, steps=3)
    assert (few.int() - images.int()).abs().max() == 3
    assert torch.equal(bim(net, images, labels, eps=8, steps=10), bim(net, images, labels, eps=8))
    for steps, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="steps"):
            bim(net, images, labels, eps=8, steps=steps)


def test_bim_is_at_least_as_strong_as_fgsm(generator):
    net = small_net()
    images = torch.randint(0, 256, (300, *SHAPE), generator=generator, dtype=torch.uint8)
    labels = predict(net, images)
    left = {
        name: (predict(net, attack(net, images, labels, eps=8, label_source="true")) == labels).sum().item()
        for name, attack in SIGN_ATTACKS.items()
    }
    assert left["bim"] <= left["fgsm"] < 300


@pytest.fixture(scope="module", params=["resnet", "vgg"])
def shipped(request):
    """A shipped network, and how many of the first test images it gets right after an attack from the true labels."""
    net, data = load_classifier("fashion-mnist", request.param), load_images("fashion-mnist", "test", limit=20)

    def right_after(name: str, eps: int, count: int = 20) -> int:
        images, labels = data.images[:count], data.labels[:count]
        return (predict(net, ATTACKS[name](net, images, labels, eps=eps, label_source="true")) == labels).sum().item()

    return right_after


def test_success_on_a_shipped_network_grows_with_eps_and_with_iterating(shipped):
    right = {name: [shipped(name, eps) for eps in (0, 2, 8)] for name in SIGN_ATTACKS}
    for counts in right.values():
        assert counts == sorted(counts, reverse=True)
        assert counts[0] >= 18 and counts[-1] <= 13
    assert all(iterated <= once for iterated, once in zip(right["bim"], right["fgsm"], strict=True))
    assert right["bim"][-1] < right["fgsm"][-1]


@pytest.mark.parametrize("name, count", [("fgsm", 20), ("bim", 10)])
def test_with_half_of_the_range_no_more_than_chance_is_left(name, count, shipped):
    assert shipped(name, 128, count) <= count / CLASSES


def test_rand_is_uniform_over_the_integers(generator):
    eps, images = 3, torch.full((50, 1, 40, 40), 128, dtype=torch.uint8)
    noise = rand(None, images, torch.zeros(50, dtype=torch.int64), eps=eps, generator=generator).long() - 128
    counts = torch.bincount((noise + eps).flatten(), minlength=2 * eps + 1).double()
    assert len(counts) == 2 * eps + 1
    expected = noise.numel() / (2 * eps + 1)
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < 22.5  # 6 degrees of freedom: exceeded once in 1,000 seeds


def test_rand_clips_to_the_range_of_levels(generator):
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(5000).view(1, 1, 2, 5000)
    out = rand(None, images, torch.zeros(1, dtype=torch.int64), eps=4, generator=generator).view(2, -1)
    # five of the nine offsets leave an end level where it is
    for row, end, inside in ((out[0], 0, range(1, 5)), (out[1], 255, range(251, 255))):
        assert set(row.tolist()) == {end, *inside}
        assert (row == end).double().mean().item() == pytest.approx(5 / 9, abs=0.03)


def test_rand_follows_its_generator_alone(images, labels):
    draws = [
        rand(linear(net), images, labels, eps=8, batch_size=size, generator=torch.Generator().manual_seed(seed))
        for net, size, seed in ((0, 500, 7), (1, 5, 7), (0, 500, 8))
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("name", EVERY)
def test_batches_and_modes_do_not_matter(name, images, labels):
    """To the last integer; the floats of a search carry the float noise of a convolution on another batch."""
    net = small_net()
    expected = run(name, net, images, labels, eps=8)
    close = {"rtol": 0, "atol": 1e-5 if name not in ATTACKS else 0}
    torch.testing.assert_close(run(name, net, images, labels, eps=8, batch_size=5), expected, **close)
    with torch.no_grad():
        assert torch.equal(run(name, net, images, labels, eps=8), expected)
    with torch.inference_mode():
        assert torch.equal(run(name, net, images.clone(), labels.clone(), eps=8), expected)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("frozen", [False, True], ids=["trainable", "frozen"])
def test_leaves_no_trace(name, frozen, images, labels):
    net = small_net().requires_grad_(not frozen)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    random_state = torch.get_rng_state()
    run(name, net, images, labels, eps=8)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not net.training


@pytest.mark.parametrize("name", ATTACKS)
def test_no_images(name):
    out = run(name, linear(), torch.zeros(0, *SHAPE, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), eps=8)
    assert out.shape == (0, *SHAPE) and out.dtype == torch.uint8


def test_progress_bar(images, labels, capsys):
    """It is there when it is asked for, terminal or not: a notebook is none."""
    fgsm(linear(), images, labels, eps=1, progress=True)
    assert f"{len(images)}/{len(images)}" in capsys.readouterr().err
    fgsm(linear(), images, labels, eps=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ATTACKS)
def test_eps_may_be_a_number_of_numpy_s(name, images, labels):
    assert torch.equal(run(name, small_net(), images, labels, eps=np.int64(8)),
                       run(name, small_net(), images, labels, eps=8))  # fmt: skip
    with pytest.raises(TypeError, match="colour levels"):
        run(name, small_net(), images, labels, eps=np.uint8(8))


@pytest.mark.parametrize("name", EVERY)
def test_torch_s_default_device_does_not_matter(name, images, labels):
    net = small_net()
    expected = run(name, net, images, labels, eps=8)
    with torch.device("meta"):
        assert torch.equal(run(name, net, images, labels, eps=8), expected)


def test_attacks_take_the_same_arguments():
    for attack in ATTACKS.values():
        parameters = inspect.signature(attack).parameters
        assert list(parameters)[:4] == ["net", "images", "labels", "eps"]
        assert {"batch_size", "progress"} < set(parameters)
        options = [p for p in parameters.values() if p.name not in ("net", "images", "labels")]
        assert all(p.kind is p.KEYWORD_ONLY for p in options)


class Returns(nn.Module):
    """A network whose output is whatever a function makes of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, pixels):
        return self.function(pixels.flatten(1))


def repeated(x, columns=CLASSES):
    return x[:, :1].expand(-1, columns)


BAD_INPUT = {
    "float images": (lambda i: {"images": i.float() / 255}, TypeError, "uint8"),
    "images out of range": (lambda i: {"images": i.short() + 1}, TypeError, "uint8"),
    "no tensor": (lambda i: {"images": i.tolist()}, TypeError, "list"),
    "images of three axes": (lambda i: {"images": i[:, 0]}, ValueError, "(N, C, H, W)"),
    "too few labels": (lambda i: {"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, "(12,)"),
    "int32 labels": (lambda i: {"labels": torch.zeros(12, dtype=torch.int32)}, TypeError, "int64"),
    "label 10": (lambda i: {"labels": torch.full((12,), 10)}, ValueError, "0..9"),
    "labels elsewhere": (lambda i: {"labels": torch.zeros(12, dtype=torch.int64, device="meta")}, ValueError, "meta"),
    "batch size 0": (lambda i: {"batch_size": 0}, ValueError, "at least 1"),
    "batch size a float": (lambda i: {"batch_size": 1.0}, TypeError, "integer"),
}
BAD_NET = {
    "training mode": (lambda: linear().train(), ValueError, "training mode"),
    "no module": (lambda: torch.relu, TypeError, "Module"),
    "nine classes": (lambda: Returns(lambda x: repeated(x, 9)).eval(), ValueError, "(12, 10)"),
    "flat logits": (lambda: Returns(lambda x: x[:, 0]).eval(), ValueError, "(12, 10)"),
    "labels for logits": (lambda: Returns(lambda x: repeated(x).long()).eval(), TypeError, "int64"),
    "a tuple": (lambda: Returns(lambda x: (x, x)).eval(), TypeError, "tuple"),
    "NaN logits": (lambda: Returns(lambda x: repeated(x) * float("nan")).eval(), ValueError, "NaN"),
    "infinite logits": (lambda: Returns(lambda x: repeated(x) + float("inf")).eval(), ValueError, "infinite"),
    "no gradient": (lambda: Returns(lambda x: repeated(x).detach()).eval(), ValueError, "differentiably"),
    "NaN gradient": (lambda: Returns(lambda x: (x[:, :CLASSES] * 0).sqrt()).eval(), ValueError, "gradient"),
}


def counted(net: nn.Module) -> tuple[nn.Module, list]:
    """The network, and a list that grows with every call of it."""
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    return net, calls


@pytest.mark.parametrize("eps", [0, 8])
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("change, kind, mention", BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_refused_before_any_work(name, change, kind, mention, eps, images, labels):
    arguments = {"images": images, "labels": labels, "eps": eps, **change(images)}
    net, calls = counted(linear())
    with pytest.raises(kind) as caught:
        run(name, net, **arguments)
    assert mention in str(caught.value)
    assert not calls


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("eps, kind", BAD_EPS.values(), ids=BAD_EPS)
def test_bad_eps_is_refused_before_any_work(name, eps, kind, images, labels):
    net, calls = counted(linear())
    with pytest.raises(kind, match="eps"):
        run(name, net, images, labels, eps=eps)
    assert not calls


@pytest.mark.parametrize("name", ATTACKS)
def test_eps_0_asks_the_network_nothing(name, images, labels):
    net, calls = counted(linear())
    assert torch.equal(run(name, net, images, labels, eps=0), images)
    assert not calls


@pytest.mark.parametrize("name", [name for name in EVERY if name != "rand"])
@pytest.mark.parametrize("make, kind, mention", BAD_NET.values(), ids=BAD_NET)
def test_bad_network(name, make, kind, mention, images, labels):
    with pytest.raises(kind) as caught:
        run(name, make(), images, labels, eps=8)
    assert mention in str(caught.value)


@pytest.mark.parametrize("eps", [0, 8])
@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_a_network_in_training_mode_is_not_called(name, eps, images, labels):
    net, calls = counted(linear().train())
    with pytest.raises(ValueError, match="training mode"):
        run(name, net, images, labels, eps=eps)
    assert not calls


@pytest.mark.parametrize("eps", [0, 8])
@pytest.mark.parametrize("name", [name for name in EVERY if name != "rand"])
def test_unknown_label_source(name, eps, images, labels):
    net, calls = counted(linear())
    with pytest.raises(ValueError, match="predicted, true"):
        run(name, net, images, labels, eps=eps, label_source="random")
    assert not calls


@pytest.mark.parametrize("given", [None, 0], ids=["none", "a seed"])
def test_rand_without_a_generator(given, images, labels):
    with pytest.raises(TypeError, match="torch.Generator"):
        rand(None, images, labels, eps=8, generator=given)
    with pytest.raises(TypeError, match="generator"):
        rand(None, images, labels, eps=8)
