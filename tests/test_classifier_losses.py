"""What each way of training minimises, and the adversarial examples made on the way."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixeldefend import loop
from pixeldefend.classifiers import VGG, ResNet, losses
from pixeldefend.classifiers.losses import adversarial_cross_entropy, bim_examples, draw_eps, fgsm_examples, loss_of

LEVEL = 1 / 255
ROUNDING = 1e-6  # of float32 pixels
ATTACKS = {"fgsm": fgsm_examples, "bim": bim_examples}


def linear_net(generator) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(10, 16, generator=generator))
    return net


def residual_net(generator) -> ResNet:
    net = ResNet(channels=1, width=2, units=1)
    net.reset_parameters(generator)
    return net.to(memory_format=torch.channels_last)


def vgg_net(generator) -> VGG:
    net = VGG(channels=1, width=2, side=16)
    net.reset_parameters(generator)
    return net


def batch(count: int, generator, side: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of which a fifth are at an end of the range, and labels."""
    levels = torch.randint(-30, 286, (count, 1, side, side), generator=generator).clamp(0, 255)
    return levels.float() / 255, torch.randint(0, 10, (count,), generator=generator)


def brighter(model, pixels, std):
    return (pixels + std * LEVEL).clamp(0, 1)


def mean_loss(net, pixels, labels) -> float:
    return F.cross_entropy(net(pixels), labels).item()


@pytest.fixture
def eps_is(monkeypatch):
    """Makes every eps drawn the given number."""
    return lambda eps: monkeypatch.setattr(losses, "draw_eps", lambda count, std: torch.full((count,), float(eps)))


# -- the losses -------------------------------------------------------------------------------------------------------


def test_smoothed_labels_give_nine_tenths_to_the_true_class_and_share_the_rest(generator):
    net, (pixels, labels) = linear_net(generator), batch(6, generator)
    target = torch.full((6, 10), 0.1 / 9)
    target[range(6), labels] = 0.9
    by_hand = -(target * net(pixels).log_softmax(dim=1)).sum(dim=1).mean()
    loss, numbers = loss_of("label-smoothing", 8.0)(net, pixels, labels)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert numbers["accuracy"] == (net(pixels).argmax(1) == labels).float().mean()
    assert mean_loss(net, pixels, labels) != pytest.approx(by_hand.item(), rel=1e-2)


@pytest.mark.parametrize("count, clean", [(8, 4), (7, 4), (2, 1)])
def test_clean_and_adversarial_examples_weigh_1_to_three_tenths(count, clean, generator):
    net, (pixels, labels) = linear_net(generator), batch(count, generator)
    labels[0] = net(pixels)[0].argmax()
    loss, numbers = adversarial_cross_entropy(net, pixels, labels, attack=brighter, std=60.0)
    mixed = torch.cat([pixels[:clean], (pixels[clean:] + 60 / 255).clamp(0, 1)])
    each = F.cross_entropy(net(mixed), labels, reduction="none")
    by_hand = (2.0 / 1.3 * each[:clean].sum() + 0.6 / 1.3 * each[clean:].sum()) / count
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)
    if count == 2 * clean:
        assert loss.item() == pytest.approx(((each[:clean].mean() + 0.3 * each[clean:].mean()) / 1.3).item(), rel=1e-6)
    right = (net(mixed).argmax(dim=1) == labels).float()
    assert numbers["accuracy"] == right[:clean].mean()
    assert numbers["adversarial_accuracy"] == right[clean:].mean()


def test_a_single_image_cannot_be_halved(generator):
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        adversarial_cross_entropy(linear_net(generator), *batch(1, generator), attack=brighter, std=8.0)


@pytest.mark.parametrize("training", ["adversarial-fgsm", "adversarial-bim"])
def test_ways_of_training_have_their_own_attack_and_std(training, generator):
    """The same batch again, attacked by hand with the same random numbers."""
    net, (pixels, labels) = linear_net(generator), batch(20, generator)
    with loop.seeded(0, 1):
        loss, _ = loss_of(training, 25.0)(net, pixels, labels)
    with loop.seeded(0, 1):
        attacked = ATTACKS[training.removeprefix("adversarial-")](net, pixels[10:], 25.0)
    by_hand = (mean_loss(net, pixels[:10], labels[:10]) + 0.3 * mean_loss(net, attacked, labels[10:])) / 1.3
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


# -- what making adversaries leaves behind ----------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("build", [residual_net, vgg_net], ids=["resnet", "vgg"])
def test_only_the_mixed_batch_changes_the_running_statistics_and_nothing_touches_gradients(
    build, attack, generator, eps_is
):
    eps_is(6.4)
    net, (pixels, labels) = build(generator), batch(8, generator, side=16)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    before, twin, made = copy.deepcopy(net.state_dict()), copy.deepcopy(net), []

    def spied(model, clean, std):
        assert not any(part.training for part in model.modules())
        made.append(attack(model, clean, std))
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])
        return made[-1]

    adversarial_cross_entropy(net, pixels, labels, attack=spied, std=8.0)
    assert all(part.training for part in net.modules())
    assert all((parameter.grad == 3.0).all() for parameter in net.parameters())
    assert not made[0].requires_grad
    twin.train()(torch.cat([pixels[:4], made[0]]))
    for (name, value), expected in zip(net.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name
        assert torch.equal(value, before[name]) != ("running" in name or "tracked" in name), name


def test_training_mode_comes_back_after_an_error(generator):
    net = residual_net(generator)

    def fails(model, clean, std):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adversarial_cross_entropy(net, *batch(8, generator, side=16), attack=fails, std=8.0)
    assert all(part.training for part in net.modules())


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_making_adversaries_does_not_change_the_update_in_mixed_precision(attack, generator, eps_is):
    """Autocast keeps converted weights from one pass to the next: they must not lose their place in the graph."""
    eps_is(6.4)
    net, (pixels, labels) = residual_net(generator), batch(8, generator, side=16)
    twin, made = copy.deepcopy(net), []

    def spied(model, clean, std):
        made.append(attack(model, clean, std))
        return made[0]

    for model, chosen in ((net, spied), (twin, lambda *_: made[0])):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = adversarial_cross_entropy(model, pixels, labels, attack=chosen, std=8.0)
        loss.backward()
    for ours, expected in zip(net.parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None
        assert torch.equal(ours.grad, expected.grad)


# -- the attacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [8.0, 25.0])
def test_eps_is_the_absolute_value_of_a_normal_variable_truncated_at_two_deviations(std):
    with loop.seeded(0, 0):
        eps = draw_eps(100_000, std) / std
    assert eps.shape == (100_000,)
    assert eps.min() > 0
    assert 1.99 < eps.max() <= 2
    for bound in (0.25, 0.5, 1.0, 1.5):  # the distribution function: erf(x / sqrt 2) / erf(2 / sqrt 2)
        expected = torch.erf(torch.tensor(bound / 2**0.5)) / torch.erf(torch.tensor(2**0.5))
        assert (eps <= bound).float().mean().item() == pytest.approx(expected.item(), abs=0.006)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("build", [linear_net, residual_net], ids=["linear", "resnet"])
def test_adversaries_stay_in_range_and_raise_the_loss_of_the_prediction(build, attack, generator):
    side = 4 if build is linear_net else 16
    net, (pixels, _) = build(generator).eval(), batch(40, generator, side=side)
    predicted = net(pixels).argmax(dim=1)
    with loop.seeded(0, 1):
        made = attack(net, pixels, 8.0)
    change = made - pixels
    assert made.shape == pixels.shape
    assert 0 <= made.min() and made.max() <= 1
    assert LEVEL < change.abs().max() <= 16 * LEVEL + ROUNDING
    before, after = (F.cross_entropy(net(x), predicted, reduction="none") for x in (pixels, made))
    assert (after > before).float().mean() >= 0.95
    assert after.mean() > 1.02 * before.mean()


def test_fgsm_has_an_eps_for_each_image_which_every_pixel_moves_by(generator):
    net, (pixels, _) = linear_net(generator).eval(), batch(20, generator)
    with loop.seeded(0, 1):
        made = fgsm_examples(net, pixels, 8.0)
    with loop.seeded(0, 1):
        eps = draw_eps(20, 8.0).view(-1, 1, 1, 1) * LEVEL
    up, down = (pixels + eps).clamp(max=1), (pixels - eps).clamp(min=0)
    assert torch.minimum((made - up).abs(), (made - down).abs()).max() < ROUNDING
    assert len(eps.unique()) == 20


@pytest.mark.parametrize("eps, steps", [(0.7, 0), (0.9, 1), (5.5, 6), (12.5, 15), (16.0, 20), (20.0, 24)])
def test_bim_steps_by_one_level_and_ends_on_the_ball(eps, steps, generator, eps_is, monkeypatch):
    """The last step, from 5 to 6 levels for eps 5.5, is cut off at eps; no other attack overshoots."""
    eps_is(eps)
    net, (pixels, _) = linear_net(generator).eval(), batch(20, generator)
    passes, uphill = [], losses.uphill
    monkeypatch.setattr(losses, "uphill", lambda *args: passes.append(args[1]) or uphill(*args))
    made = bim_examples(net, pixels, 8.0)
    assert len(passes) == steps
    if steps > 1:
        assert (passes[1] - pixels).abs().max().item() == pytest.approx(LEVEL, abs=ROUNDING)
    assert (made - pixels).abs().max().item() == pytest.approx(min(eps, steps) * LEVEL, abs=ROUNDING)


def test_bim_leads_away_from_the_prediction_on_the_clean_image_throughout(eps_is):
    """Two classes whose border is one level away: with new predictions, the image would go back and forth over it."""
    eps_is(10)
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 10))
    with torch.no_grad():
        net[1].weight.zero_()[:2] = torch.tensor([[1.0], [-1.0]])
        net[1].bias.fill_(-9.0)[:2] = torch.tensor([-100.5, 100.5]) * LEVEL
    made = bim_examples(net.eval(), torch.full((1, 1, 1, 1), 101 * LEVEL), 8.0)
    assert made.item() == pytest.approx(91 * LEVEL, abs=ROUNDING)
