"""L-BFGS-B purification: the right function and gradient, inside the box, and never worse than where it started."""

import threading

import numpy as np
import pytest
import torch
from nets import random_images, small_density
from scipy.optimize import minimize
from torch import nn

from pixeldefend import lbfgs_purify
from pixeldefend.defenses.lbfgs import OBJECTIVES, UNIT, evaluation, log_likelihood_and_gradient, minimise_together

OBJECTIVE = pytest.mark.parametrize("objective", OBJECTIVES)
CHANNELS = pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])


def purify(density, images, *, seed: int = 0, **options):
    options = {"eps_defend": 20, "starts": 3, "max_iterations": 8, **options}
    return lbfgs_purify(density, images, generator=torch.Generator().manual_seed(seed), **options)


def with_both_ends(images):
    """Images some pixels of which are 0, 1, 254 and 255, where the continuous density has its corners."""
    images = images.clone()
    images[:, :, 0, :4] = torch.tensor([0, 1, 254, 255], dtype=torch.uint8)
    return images


@OBJECTIVE
@CHANNELS
def test_at_integers_the_objective_is_the_log_likelihood(channels, objective):
    density = small_density(channels)
    images = with_both_ends(random_images(4, channels, 8, 8, seed=1))
    nats, _ = log_likelihood_and_gradient(density, images.float(), objective=objective)
    assert torch.allclose(nats.float(), density.log_likelihood(images), rtol=1e-6)


@OBJECTIVE
@CHANNELS
def test_the_gradient_is_that_of_finite_differences(channels, objective):
    density = small_density(channels)
    levels = random_images(1, channels, 8, 8, seed=2).float().clamp(1, 253) + 0.4
    levels[0, 0, 0, :3] = torch.tensor([0.5, 254.5, 0.9])  # where the edge towards the tail fades
    evaluate = evaluation(density, levels.shape[1:], objective=objective)
    x, step = levels.double().numpy().reshape(1, -1) / UNIT, 0.05 / UNIT
    _, gradient = evaluate(x)
    change = step * np.eye(x.size)
    slopes = (evaluate(x + change)[0] - evaluate(x - change)[0]) / (2 * step)
    assert np.allclose(slopes, gradient, rtol=0.01, atol=0.03 * abs(gradient).mean())


def test_the_objective_of_the_context_truncates_a_pixel_and_gives_the_last_one_no_gradient():
    density = small_density(1)
    levels = random_images(1, 1, 8, 8, seed=2).float().clamp(max=253)
    changed = levels.clone()
    changed[0, 0, -1, -1] += 0.9
    nats, gradient = log_likelihood_and_gradient(density, torch.cat([levels, changed]), objective="context")
    assert nats[0] == nats[1] and not gradient[:, 0, -1, -1].any() and gradient[:, 0, :-1].any()
    _, whole = log_likelihood_and_gradient(density, changed)
    assert whole[0, 0, -1, -1]


@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_the_objective_has_no_jump_at_the_ends(level):
    density = small_density(1)
    levels = random_images(1, 1, 8, 8, seed=3).float()
    levels[0, 0, 4, 4] = level
    near = levels.clone()
    near[0, 0, 4, 4] += 0.02 if level < 128 else -0.02  # well above what the network's float32 can resolve
    nats, gradient = log_likelihood_and_gradient(density, torch.cat([levels, near]))
    assert nats[0] != nats[1] and gradient.isfinite().all()
    assert abs(nats[0] - nats[1]) < 0.2


@OBJECTIVE
@CHANNELS
def test_results_lie_in_the_box_and_are_never_worse_than_their_starts(channels, objective):
    density = small_density(channels)
    images = with_both_ends(random_images(2, channels, 8, 8, seed=4))
    found = purify(density, images, objective=objective)
    assert found.images.dtype == torch.uint8 and found.images.shape == (2, 3, channels, 8, 8)
    assert ((found.images.int() - images[:, None].int()).abs() <= 20).all()
    assert (found.real_bits <= found.start_bits).all()
    if objective == "continuous":
        assert (found.real_bits < found.start_bits - 0.1).all(), "eight iterations gain something from noise"
        assert (found.bits < found.start_bits).all()
        assert (found.iterations > 1).all()
    assert torch.allclose(found.bits.flatten(), density.bits_per_dim(found.images.flatten(0, 1)))
    assert ((found.iterations <= 8) & (found.evaluations > found.iterations)).all()
    assert torch.allclose(density.bits_per_dim(found.best), found.bits.amin(1))


def constant_density(mean: float, log_scale: float):
    """A density of independent pixels, each with the same single logistic."""
    density = small_density(1, mixtures=1)
    with torch.no_grad():
        density.network.head.g.zero_()
        density.network.head.b.copy_(torch.tensor([0.0, mean, log_scale]))  # the first is the only component's weight
    return density


def test_starts_are_uniform_in_the_box():
    """All levels inside 1..254 are equally likely and without a slope, so that the results are the starts."""
    images = torch.full((1, 1, 8, 8), 120, dtype=torch.uint8)
    found = purify(constant_density(0.0, 30.0), images, eps_defend=100, starts=20)
    levels = found.images.float()
    assert 20 <= levels.min() < 25 and 215 < levels.max() <= 220
    assert abs(levels.mean() - 120) < 6 and abs(levels.std() - 200 / 12**0.5) < 4
    assert torch.equal(found.start_bits, found.real_bits)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_a_density_with_one_maximum_is_solved(level):
    """Every pixel goes to the middle of the logistic, or as near to it as the box allows."""
    middle_of_bin = (level + 0.5) / 128 - 1
    images = torch.arange(0, 256, 4, dtype=torch.uint8).reshape(1, 1, 8, 8)
    found = purify(constant_density(middle_of_bin, -3.0), images, max_iterations=200)
    levels = images.int()
    assert torch.equal(found.best.int(), torch.full_like(levels, level).clamp(levels - 20, levels + 20))
    assert (found.iterations < 200).all(), "it stops where nothing is left to gain"


def test_it_is_deterministic_given_the_generator_and_leaves_its_input_alone():
    density = small_density(1)
    images = random_images(1, 1, 8, 8, seed=5)
    weights = [parameter.clone() for parameter in density.parameters()]
    first, again, other = (purify(density, images, seed=seed, max_iterations=3) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images) and torch.equal(first.real_bits, again.real_bits)
    assert not torch.equal(first.start_bits, other.start_bits)
    assert torch.equal(images, random_images(1, 1, 8, 8, seed=5))
    assert all(torch.equal(*pair) for pair in zip(weights, density.parameters(), strict=True))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in density.parameters())


def test_a_caller_may_be_in_inference_mode():
    density, images = small_density(1), random_images(1, 1, 8, 8, seed=5)
    expected = purify(density, images, max_iterations=3), log_likelihood_and_gradient(density, images.float())
    with torch.inference_mode():
        found = purify(density, images.clone(), max_iterations=3)
        nats, gradient = log_likelihood_and_gradient(density, images.float())
    assert torch.equal(found.images, expected[0].images) and torch.equal(found.bits, expected[0].bits)
    assert torch.equal(nats, expected[1][0]) and torch.equal(gradient, expected[1][1])


def test_torch_s_default_device_does_not_matter():
    density, images = small_density(1), random_images(1, 1, 8, 8, seed=5)
    expected = purify(density, images, max_iterations=3)
    with torch.device("meta"):
        assert torch.equal(purify(density, images, max_iterations=3).images, expected.images)


def test_the_progress_bar_is_there_when_it_is_wanted(capsys):
    for progress in (True, False):
        purify(small_density(1), random_images(1, 1, 8, 8), starts=2, max_iterations=1, progress=progress)
        assert ("2/2" in capsys.readouterr().err) == progress


def test_a_radius_of_zero_returns_the_image_and_no_images_give_none():
    images = random_images(2, 1, 8, 8, seed=6)
    found = purify(small_density(1), images, eps_defend=0)
    assert torch.equal(found.images, images[:, None].expand(-1, 3, -1, -1, -1))
    assert purify(small_density(1), images[:0]).best.shape == (0, 1, 8, 8)


def bowls(x):
    """Tilted quartic bowls, rows of ``x``, and their gradients."""
    weights = np.arange(1.0, x.shape[1] + 1)
    return (weights * (x - 0.5) ** 4).sum(1) + x.sum(1), 4 * weights * (x - 0.5) ** 3 + 1


def test_runs_that_share_evaluations_are_scipy_s_own_runs():
    starts = np.random.default_rng(0).uniform(-1, 1, (7, 4))
    lower, upper = np.full_like(starts, -1.0), np.linspace(0.1, 1, 7)[:, None] + np.zeros_like(starts)
    starts = np.minimum(starts, upper)
    calls, steps = [], []

    def evaluate(x):
        calls.append(len(x))
        return bowls(x)

    shared = minimise_together(evaluate, starts, lower, upper, {"maxiter": 30}, batch_size=3, step=lambda: steps.append(1))
    for n, run in enumerate(shared):
        alone = minimize(lambda x: tuple(part[0] for part in bowls(x[None])), starts[n], jac=True, method="L-BFGS-B",
                         bounds=list(zip(lower[n], upper[n], strict=True)), options={"maxiter": 30})  # fmt: skip
        assert np.array_equal(run.x, alone.x) and run.fun == alone.fun and run.nit == alone.nit
        assert run.first == bowls(starts[n : n + 1])[0][0]
    assert max(calls) == 3 and sum(calls) == sum(run.nfev for run in shared) > 2 * len(calls)
    assert len(steps) == len(starts)


@pytest.mark.parametrize("after", [0, 3])
def test_an_error_or_an_interruption_in_the_evaluation_ends_all_runs(after):
    calls = []

    def evaluate(x):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return bowls(x)

    starts = np.zeros((5, 4))
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        minimise_together(evaluate, starts, starts - 1, starts + 1, {}, batch_size=2, step=lambda: None)
    assert len(calls) == after + 1 and threading.active_count() == threads


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps_defend": 256}, ValueError, "0..255"),
        ({"eps_defend": 8.0}, TypeError, "integer"),
        ({"starts": 0}, ValueError, "starts must be at least 1"),
        ({"max_iterations": 1.5}, TypeError, "max_iterations must be an integer"),
        ({"objective": "rounded"}, ValueError, "unknown objective"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ],
    ids=["eps too large", "eps a float", "no starts", "half an iteration", "unknown objective", "no batch"],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        purify(small_density(1), random_images(1, 1, 8, 8), **options)


def test_bad_densities_images_and_generators_are_refused():
    density, images = small_density(1), random_images(1, 1, 8, 8)
    with pytest.raises(TypeError, match="PixelCNN"):
        purify(nn.Identity(), images)
    with pytest.raises(ValueError, match="training mode"):
        purify(small_density(1).train(), images)
    with pytest.raises(ValueError, match="training mode"):
        log_likelihood_and_gradient(small_density(1).train(), images.float())
    with pytest.raises(TypeError, match="generator"):
        lbfgs_purify(density, images, eps_defend=8, starts=1, generator=0)
    for bad, error in ((images.float(), TypeError), ([0], TypeError), (random_images(1, 3, 8, 8), ValueError),
                       (random_images(1, 1, 6, 8), ValueError), (images[0], ValueError)):  # fmt: skip
        with pytest.raises(error):
            purify(density, bad)
