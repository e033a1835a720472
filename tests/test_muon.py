"""Muon: what it makes of a gradient, and how it turns the rows of weight-normalised layers."""

import copy

import pytest
import torch
from torch import nn

from pixeldefend.pixelcnn.layers import ShiftedConv, ShiftedTransposedConv
from pixeldefend.pixelcnn.muon import Muon, orthogonalise


def layers(seed: int = 0) -> list[nn.Module]:
    """Two of one shape, one of another, and one whose output maps are its second dimension."""
    torch.manual_seed(seed)
    made = [ShiftedConv(3, 4, (2, 3)), ShiftedConv(3, 4, (2, 3)), ShiftedConv(2, 5, (1, 1)),
            ShiftedTransposedConv(3, 4, (2, 2))]  # fmt: skip
    for layer in made:
        nn.init.normal_(layer.v)
        nn.init.uniform_(layer.g, 0.5, 2.0)
    return made


def rows(layer, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().transpose(0, layer.out_dim).flatten(1)


def give_gradients(made, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for layer in made:
        layer.v.grad = torch.randn(layer.v.shape, generator=generator)


def optimizer(made, **options) -> Muon:
    return Muon(made, **{"lr": 0.1, "dtype": torch.float32} | options)


@pytest.mark.parametrize("shape", [(2, 4, 9), (1, 9, 4), (3, 5, 5)], ids=["wide", "tall", "square"])
def test_singular_values_come_near_one_and_directions_stay(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(given, full_matrices=False)
    found = u.mT @ orthogonalise(given) @ vh.mT
    values = found.diagonal(dim1=-2, dim2=-1)
    assert (s / s.norm(dim=-1, keepdim=True) > 0.01).all(), "smaller ones would need more rounds"
    assert (values > 0.6).all() and (values < 1.3).all()
    assert torch.allclose(found, torch.diag_embed(values), atol=1e-9)
    assert torch.allclose(orthogonalise(1000 * given), orthogonalise(given), atol=1e-4), "its size does not matter"


def test_a_gradient_of_zero_turns_nothing():
    assert not orthogonalise(torch.zeros(1, 3, 4)).any()


def test_it_changes_no_effective_weight_before_a_step():
    made = layers()
    before = [layer.weight().detach() for layer in made]
    optimizer(made)
    for layer, weight in zip(made, before, strict=True):
        assert torch.allclose(layer.weight(), weight, atol=1e-6)
        assert torch.allclose(rows(layer, layer.v).norm(dim=1), torch.ones(layer.g.shape), atol=1e-6)


def test_two_steps_by_hand():
    made = layers()
    by_hand = copy.deepcopy(made)
    muon = optimizer(made, lr=0.2, momentum=0.9)
    values = [rows(layer, layer.v) / rows(layer, layer.v).norm(dim=1, keepdim=True) for layer in by_hand]
    averages = [torch.zeros_like(value) for value in values]
    for seed in (1, 2):
        give_gradients(made, seed)
        muon.step()
        for k, layer in enumerate(made):
            gradient = rows(layer, layer.v.grad)
            averages[k] = 0.9 * averages[k] + 0.1 * gradient
            turn = orthogonalise((0.1 * gradient + 0.9 * averages[k])[None])[0]
            turned = values[k] - 0.2 * turn * max(1.0, turn.shape[0] / turn.shape[1]) ** 0.5
            values[k] = turned / turned.norm(dim=1, keepdim=True)
            assert torch.allclose(rows(layer, layer.v), values[k], atol=1e-5)


def test_the_learning_rate_is_about_the_angle_of_a_step():
    made = [ShiftedConv(40, 40, (2, 3))]
    nn.init.normal_(made[0].v, generator=torch.Generator().manual_seed(3))
    muon = optimizer(made, lr=0.02)
    before = rows(made[0], made[0].v).clone()
    give_gradients(made, 4)
    muon.step()
    cosines = (before * rows(made[0], made[0].v)).sum(1).clamp(max=1)
    assert torch.arccos(cosines).mean().item() == pytest.approx(0.02, rel=0.3)


def test_the_memory_format_does_not_matter():
    one, other = layers(), layers()
    for layer in other:
        layer.to(memory_format=torch.channels_last)
    for made in (one, other):
        muon = optimizer(made)
        give_gradients(made, 5)
        muon.step()
    assert all(torch.equal(a.v, b.v) for a, b in zip(one, other, strict=True))


def test_its_state_goes_on_where_it_was_saved():
    whole, parts = layers(), layers()
    muon = optimizer(whole)
    for seed in (1, 2):
        give_gradients(whole, seed)
        muon.step()
    first = optimizer(parts)
    give_gradients(parts, 1)
    first.step()
    second = optimizer(parts)
    second.load_state_dict(first.state_dict())
    give_gradients(parts, 2)
    second.step()
    assert all(torch.allclose(a.v, b.v, atol=1e-6) for a, b in zip(whole, parts, strict=True))


def test_it_learns_faster_than_plain_descent_where_directions_differ_in_scale():
    """What it is for: least squares whose inputs differ a thousandfold in size."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(64, 8, 1, 1, generator=generator) * torch.logspace(0, -1.5, 8)[:, None, None]
    target = torch.randn(4, 8, 1, 1, generator=generator)
    target = target / target.flatten(1).norm(dim=1)[:, None, None, None]
    left = {}
    for name in ("muon", "sgd"):
        layer = ShiftedConv(8, 4, (1, 1))
        nn.init.normal_(layer.v, generator=torch.Generator().manual_seed(7))
        method = optimizer([layer], lr=0.05) if name == "muon" else torch.optim.SGD([layer.v], lr=0.5, momentum=0.9)
        for step in range(150):
            for group in method.param_groups:
                group["lr"] = (0.05 if name == "muon" else 0.5) * (1 - step / 150)
            layer.zero_grad()
            (layer(x) - nn.functional.conv2d(x, target)).square().mean().backward()
            method.step()
        left[name] = (layer.weight() - target).norm().item()
    assert left["muon"] < left["sgd"]
