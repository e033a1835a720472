"""Greedy decoding against L-BFGS-B: what is measured, how it is counted, and that a lab measures it once."""

from types import SimpleNamespace

import pytest
import torch
from matplotlib import pyplot as plt
from nets import random_images, small_density
from torch import nn

from pixeldefend import PixelDefend, predict
from pixeldefend.defenses import lbfgs_purify
from pixeldefend.study.available import FIGURE_EPS
from pixeldefend.study.conditions import PROFILES
from pixeldefend.study.purification import optimisation
from pixeldefend.study.purification.figures import purifier_strips
from pixeldefend.study.purification.optimisation import (
    SEARCHES,
    Comparison,
    Runs,
    Search,
    compare,
    comparison_table,
    mean_over_images,
)

SEARCH = Search(images=3, starts=2, max_iterations=1)


class ByMean(nn.Module):
    """Classifies by mean brightness, in ten steps."""

    def forward(self, pixels):
        return -100 * (pixels.mean((1, 2, 3))[:, None] - torch.linspace(0.4, 0.6, 10)).square()


@pytest.fixture(scope="module")
def toy():
    """Density, classifier, clean and attacked images, and their labels."""
    net, clean = ByMean().eval(), random_images(3, 1, 8, 8, seed=1)
    return small_density(1), net, clean, random_images(3, 1, 8, 8, seed=2), predict(net, clean)


@pytest.fixture(scope="module")
def found(toy):
    return compare(*toy, eps_defend=20, search=SEARCH)


def test_everything_is_scored_and_classified(toy, found):
    density, net, clean, attacked, labels = toy
    comparison = Comparison.from_plain(found)
    expected = {"clean": clean, "attacked": attacked, "greedy": PixelDefend(density, eps_defend=20)(attacked)}
    for kind, images in expected.items():
        assert torch.allclose(comparison.bits[kind].float(), density.bits_per_dim(images), atol=1e-5)
        assert torch.equal(comparison.predictions[kind], predict(net, images))
    assert torch.equal(comparison.labels, labels)


@pytest.mark.parametrize("objective", ["continuous", "context"])
def test_runs_are_those_of_the_purifier_from_the_same_starts(toy, found, objective):
    density, net, _, attacked, _ = toy
    runs = Comparison.from_plain(found).runs[objective]
    optima = lbfgs_purify(density, attacked, eps_defend=20, starts=2, objective=objective, max_iterations=1,
                          generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert torch.allclose(runs.rounded.float(), optima.bits, atol=1e-5)
    assert torch.allclose(runs.real.float(), optima.real_bits, atol=1e-5)
    assert torch.allclose(runs.rounding, runs.rounded - runs.real)
    assert torch.equal(runs.iterations, optima.iterations) and torch.equal(runs.evaluations, optima.evaluations)
    assert torch.equal(runs.predictions, predict(net, optima.images.flatten(0, 1)).view(3, 2))


def counted() -> Comparison:
    """Two images, two runs each: three of the runs fail, one is rounded to failure."""
    real, rounded = torch.tensor([[1.0, 5.0], [3.9, 6.0]]).double(), torch.tensor([[1.5, 5.0], [4.5, 6.0]]).double()
    iterations = torch.ones(2, 2, dtype=torch.int64)
    runs = Runs(real + 3, real, rounded, iterations, iterations, torch.tensor([[0, 0], [1, 0]]))
    bits = {"clean": [1.0, 2.0], "attacked": [4.0, 4.0], "greedy": [2.0, 5.0]}
    seen = {"clean": [0, 1], "attacked": [1, 0], "greedy": [0, 0]}
    return Comparison(torch.tensor([0, 1]), {k: torch.tensor(v).double() for k, v in bits.items()},
                      {k: torch.tensor(v) for k, v in seen.items()}, {"continuous": runs})  # fmt: skip


def test_failures_are_counted_after_rounding():
    comparison = counted()
    runs = comparison.runs["continuous"]
    assert runs.less_likely_than(comparison.bits["attacked"]) == 3
    assert runs.best.tolist() == [1.5, 4.5]


def test_the_table_has_a_line_for_each_purifier():
    lines = comparison_table(counted()).splitlines()[2:]
    clean, attacked, greedy, continuous = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert clean[0] == "not attacked, not purified" and clean[1] == "2" and clean[3].startswith("**0**")
    assert attacked[3] == "" and attacked[4].startswith("**0**")
    assert greedy[2].startswith("**3.50**") and greedy[3].startswith("**50**") and greedy[4].startswith("**50**")
    assert continuous[:2] == ["L-BFGS-B, continuous objective", "4"]
    assert continuous[2].startswith("**4.25**") and continuous[3].startswith("**75**") and continuous[4].startswith("**75**")


def test_the_interval_of_a_mean_is_student_s_over_images():
    mean, low, high = mean_over_images(torch.tensor([[1.0, 3.0], [2.0, 2.0], [3.0, 5.0]]))
    half = 4.302653 * (4 / 3) ** 0.5 / 3**0.5  # t with two degrees of freedom; the means are 2, 2 and 4
    assert mean == pytest.approx(8 / 3) and (low, high) == pytest.approx((8 / 3 - half, 8 / 3 + half), abs=1e-5)
    for values in (torch.ones(1, 4), torch.ones(4)):
        with pytest.raises(ValueError, match="at least two images"):
            mean_over_images(values)


def test_the_words_count_runs_and_images():
    text = optimisation.in_words(counted())
    assert "from 1.50 to 4.00 bits per dimension, greedy decoding from there to 3.50" in text
    assert "3 of 4 runs end less likely than the attacked image" in text
    assert "for 2 of 2 images the best run beats greedy" in text and "at most 0.6000 bits" in text


def test_the_figure_has_a_point_for_each_image_and_run():
    figure = purifier_strips({"fashion-mnist": counted(), "cifar10": counted()})
    first, _ = figure.axes
    points = [line for line in first.get_lines() if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in points] == [2, 2, 2, 4, 4, 4]
    titles = [tick.get_text() for tick in first.get_yticklabels()]
    assert titles[-2:] == ["L-BFGS-B, continuous objective", "the same, rounded"] and titles[1] == f"FGSM, eps {FIGURE_EPS}"
    plt.close(figure)


def test_a_lab_measures_what_its_configuration_says(toy, found, monkeypatch):
    density, net, clean, attacked, labels = toy
    configs, asked = [], []

    def measurement(name, config, measure):
        assert name == "lbfgs"
        configs.append(config)
        return measure()

    def compare(*given, **options):
        asked.append((given, options))
        return found

    monkeypatch.setattr(optimisation, "compare", compare)
    lab = SimpleNamespace(data_set="fashion-mnist", test=SimpleNamespace(images=clean, labels=labels), density=density,
                          density_fingerprint="d", classifier=lambda: net, measurement=measurement,
                          attacked=lambda condition, limit: attacked[:limit] + condition.eps)  # fmt: skip
    searches = [Search(images=2, starts=1, max_iterations=n) for n in (1, 2, 1)]
    comparisons = [optimisation.measured(lab, search) for search in searches]
    assert comparisons[0].runs["continuous"].rounded.shape == (3, 2)
    (_, _, images, given, true), options = asked[1]
    assert torch.equal(images, clean[:2]) and torch.equal(given, attacked[:2] + FIGURE_EPS) and torch.equal(true, labels[:2])
    assert options == {"eps_defend": 32, "search": searches[1], "seed": 0}
    assert configs[0] == configs[2] != configs[1] and configs[1]["max_iterations"] == 2


def test_every_profile_has_a_search_of_at_least_two_images():
    assert SEARCHES.keys() == PROFILES.keys()
    assert all(search.images >= 2 and search.starts >= 1 for search in SEARCHES.values())
