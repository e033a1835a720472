"""Detection: the permutation test by hand and on exchangeable scores, the detector on a small density, the ROC."""

import math
import sys

import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend import LikelihoodDetector, p_values, roc
from pixeldefend.detection import auc_interval
from pixeldefend.study.tables import wilson_interval

INF = float("inf")


@pytest.mark.parametrize(
    ("score", "reference", "expected"),
    [
        (0.0, [1.0, 2.0, 3.0], 1 / 4),
        (2.5, [1.0, 2.0, 3.0], 3 / 4),
        (9.0, [1.0, 2.0, 3.0], 4 / 4),
        (2.0, [3.0, 1.0, 2.0], 3 / 4),
        (2.0, [2.0, 2.0, 1.0, 5.0], 4 / 5),
        (2.0, [2.0, 2.0, 2.0], 4 / 4),
        (1.0, [1.0], 2 / 2),
        (-INF, [1.0, 2.0], 1 / 3),
        (-INF, [-INF, 2.0], 2 / 3),
        (INF, [1.0, 2.0], 3 / 3),
    ],
    ids=["below all", "between", "above all", "one tie", "two ties", "all tied", "one reference", "impossible",
         "tied impossible", "certain"],
)
def test_the_formula_by_hand(score, reference, expected):
    """(T + 1) / (N + 1), where T counts the reference scores that are no larger: ties included."""
    assert p_values(torch.tensor([score]), torch.tensor(reference)).tolist() == pytest.approx([expected], abs=0)


def test_each_score_is_tested_by_itself_and_the_reference_s_order_does_not_matter(generator):
    scores = torch.randn(50, generator=generator).round(decimals=1)  # rounded: with ties
    reference = torch.randn(40, generator=generator).round(decimals=1)
    by_hand = [((reference <= score).sum().item() + 1) / 41 for score in scores]
    assert p_values(scores, reference).tolist() == by_hand
    assert p_values(scores, reference.flip(0)).tolist() == by_hand
    assert p_values(scores, reference).dtype == torch.float64


def test_p_values_of_exchangeable_scores_are_uniform(generator):
    """Each of N + 1 points against the N others: k / (N + 1) for every k = 1..N + 1 once."""
    points = torch.randn(20, generator=generator)
    found = [p_values(points[i : i + 1], points[torch.arange(20) != i]).item() for i in range(20)]
    assert sorted(found) == [k / 20 for k in range(1, 21)]


def test_with_ties_the_test_errs_on_the_side_of_too_large():
    """At most a fraction a of exchangeable points has a p-value of a or less."""
    points = torch.tensor([0.0] * 5 + [1.0] * 3 + [2.0] * 2)
    found = torch.cat([p_values(points[i : i + 1], points[torch.arange(10) != i]) for i in range(10)])
    for level in torch.arange(1, 11) / 10:
        assert (found <= level + 1e-9).double().mean() <= level + 1e-9


def test_p_values_lie_above_zero_and_at_most_at_one(generator):
    found = p_values(100 * torch.randn(500, generator=generator), torch.randn(30, generator=generator))
    assert found.min() == 1 / 31 and found.max() == 1.0


def test_close_float32_scores_are_told_apart():
    """Log-likelihoods of thousands of nats, one step of float32 apart."""
    low = torch.tensor(-3000.0)
    high = torch.nextafter(low, torch.tensor(0.0))
    assert p_values(low[None], high[None]).item() == 1 / 2
    assert p_values(high[None], low[None]).item() == 1.0


GOOD = torch.zeros(3)


@pytest.mark.parametrize(
    ("scores", "reference", "error", "mention"),
    [
        ([0.0], GOOD, TypeError, "scores"),
        (torch.zeros(3, dtype=torch.int64), GOOD, TypeError, "scores"),
        (GOOD, GOOD.numpy(), TypeError, "reference"),
        (torch.zeros(3, 1), GOOD, ValueError, "shape"),
        (torch.tensor(1.0), GOOD, ValueError, "shape"),
        (torch.tensor([torch.nan]), GOOD, ValueError, "NaN"),
        (GOOD, torch.tensor([1.0, torch.nan]), ValueError, "reference contain NaN"),
        (GOOD, torch.zeros(0), ValueError, "at least 1"),
    ],
    ids=["list", "integers", "array", "matrix", "number", "nan score", "nan reference", "no reference"],
)
def test_bad_scores_are_refused(scores, reference, error, mention):
    with pytest.raises(error, match=mention):
        p_values(scores, reference)


def test_no_scores_give_no_p_values():
    assert p_values(torch.zeros(0), GOOD).shape == (0,)


# -- the detector -----------------------------------------------------------------------------------------------------


def typical_and_noise(density, count: int = 12):
    """Images the density itself drew, and uniform noise, which it finds far less likely."""
    drawn = density.sample(count, generator=torch.Generator().manual_seed(1))
    return drawn, random_images(count, 1, 8, 8, seed=2)


@pytest.fixture(scope="module")
def density():
    return small_density(1)


def test_detector_ranks_log_likelihoods_among_the_reference_s(density):
    reference, images = random_images(9, 1, 8, 8, seed=3), random_images(5, 1, 8, 8, seed=4)
    detector = LikelihoodDetector.fit(density, reference)
    expected = p_values(density.log_likelihood(images), density.log_likelihood(reference))
    assert torch.equal(detector.p_values(images), expected)
    assert torch.equal(detector.reference_bits, density.bits_per_dim(reference))
    from_record = LikelihoodDetector(density, density.bits_per_dim(reference))
    assert torch.equal(from_record.p_values(images), expected)
    everyone = detector.p_values(reference)
    assert everyone.min() == 2 / 10 and everyone.max() == 1.0, "each reference image ties with itself"


def test_detector_scores_in_the_precision_it_was_made_with(density):
    images = random_images(4, 1, 8, 8)
    detector = LikelihoodDetector.fit(density, images, precision="bfloat16")
    assert torch.equal(detector.reference_bits, density.bits_per_dim(images, precision="bfloat16"))
    assert not torch.equal(detector.reference_bits, density.bits_per_dim(images))
    assert detector.p_values(images).min() == 2 / 5, "the same images get the same scores again"


def test_detector_finds_noise_among_typical_images(density):
    drawn, noise = typical_and_noise(density)
    assert density.bits_per_dim(drawn).mean() < density.bits_per_dim(noise).mean()
    detector = LikelihoodDetector.fit(density, density.sample(30, generator=torch.Generator().manual_seed(7)))
    assert detector.p_values(noise).mean() < detector.p_values(drawn).mean()
    curve = detector.roc(drawn, noise)
    assert curve.auc > 0.8
    by_hand = roc(detector.p_values(drawn), detector.p_values(noise))
    assert curve.auc == by_hand.auc and torch.equal(curve.true_positive_rate, by_hand.true_positive_rate)


def test_detector_refuses_what_it_cannot_use(density):
    bits = torch.ones(3)
    for make in (lambda: LikelihoodDetector(nn.Identity(), bits), lambda: LikelihoodDetector.fit(nn.Identity(), GOOD)):
        with pytest.raises(TypeError, match="PixelCNN"):
            make()
    with pytest.raises(ValueError, match="at least 1"):
        LikelihoodDetector(density, bits[:0])
    with pytest.raises(ValueError, match="NaN"):
        LikelihoodDetector(density, torch.tensor([1.0, torch.nan]))
    with pytest.raises(TypeError, match="reference_bits"):
        LikelihoodDetector(density, [1.0, 2.0])
    with pytest.raises(ValueError, match="never negative; were log-likelihoods passed"):
        LikelihoodDetector(density, density.log_likelihood(random_images(2, 1, 8, 8)))
    with pytest.raises(ValueError, match="unknown precision"):
        LikelihoodDetector(density, bits, precision="half")
    with pytest.raises(TypeError, match="uint8"):
        LikelihoodDetector.fit(density, torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="precision"):
        LikelihoodDetector.fit(density, random_images(2, 1, 8, 8), precision="half")
    with pytest.raises(ValueError, match="channel"):
        LikelihoodDetector(density, bits).p_values(random_images(2, 3, 8, 8))


# -- the ROC ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clean", "adversarial", "auc"),
    [
        ([0.5, 0.9, 1.0], [0.1, 0.2], 1.0),
        ([0.1, 0.2], [0.5, 0.9, 1.0], 0.0),
        ([0.5, 0.5, 0.5], [0.5, 0.5], 0.5),
        ([0.2, 0.6], [0.4, 0.8], 1 / 4),
        ([0.2, 0.6], [0.2, 0.4], 2.5 / 4),
    ],
    ids=["separable", "reversed", "equal", "interleaved", "tied"],
)
def test_auc_is_the_chance_that_an_adversarial_image_scores_lower(clean, adversarial, auc):
    """Ties count one half."""
    assert roc(torch.tensor(clean), torch.tensor(adversarial)).auc == pytest.approx(auc)


def test_roc_runs_from_nothing_to_everything_and_has_the_rates_of_a_threshold(generator):
    clean, adversarial = torch.rand(30, generator=generator), 0.7 * torch.rand(20, generator=generator)
    curve = roc(clean, adversarial)
    false, true = curve.false_positive_rate, curve.true_positive_rate
    assert (false[0], true[0]) == (0, 0) and (false[-1], true[-1]) == (1, 1)
    assert (false.diff() >= 0).all() and (true.diff() >= 0).all()
    assert torch.trapezoid(true, false).item() == pytest.approx(curve.auc)
    for threshold in adversarial[:5]:
        point = ((clean <= threshold).double().mean(), (adversarial <= threshold).double().mean())
        # sklearn leaves out points on a straight line, so the rates are read off the curve
        on_the_curve = (false - point[0]).abs() < 1e-9
        assert true[on_the_curve].min() - 1e-9 <= point[1] <= true[on_the_curve].max() + 1e-9


@pytest.mark.parametrize(
    ("clean", "adversarial", "mention"),
    [
        (torch.zeros(0), GOOD, "clean"),
        (GOOD, torch.zeros(0), "adversarial"),
        (torch.tensor([torch.nan]), GOOD, "clean"),
        (GOOD, torch.tensor([torch.nan]), "adversarial"),
        (GOOD[:, None], GOOD, "clean"),
    ],
    ids=["no clean", "no adversarial", "nan clean", "nan adversarial", "matrix"],
)
def test_roc_refuses_empty_and_nan_scores(clean, adversarial, mention):
    with pytest.raises(ValueError, match=mention):
        roc(clean, adversarial)


@pytest.mark.parametrize("function", [roc, auc_interval])
@pytest.mark.parametrize("scores", [[0.1, 0.2], GOOD.numpy(), torch.arange(3)], ids=["list", "array", "integers"])
def test_areas_need_tensors_of_floats(function, scores):
    with pytest.raises(TypeError, match="clean"):
        function(scores, GOOD)
    with pytest.raises(TypeError, match="adversarial"):
        function(GOOD, scores)


def test_scores_need_not_be_on_torch_s_default_device(density):
    clean, adversarial = torch.tensor([0.2, 0.6]), torch.tensor([0.2, 0.4])
    images = random_images(3, 1, 8, 8)
    expected = LikelihoodDetector.fit(density, images).p_values(images)
    with torch.device("meta"):
        assert roc(clean, adversarial).auc == pytest.approx(2.5 / 4)
        assert torch.equal(LikelihoodDetector.fit(density, images).p_values(images), expected)


def test_without_scikit_learn_roc_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ImportError, match="scikit-learn, of the extra \"stats\""):
        roc(GOOD, GOOD)


# -- intervals for the area, and rates at a threshold -----------------------------------------------------------------


def test_the_interval_has_delongs_variance(generator):
    """By the definition: for every pair 1, 1/2 or 0, then the variances of the means over the other kind."""
    clean = torch.randn(40, generator=generator).round(decimals=1)
    adversarial = (torch.randn(25, generator=generator) - 0.7).round(decimals=1)  # rounded: with ties
    pairs = (adversarial[:, None] < clean).double() + 0.5 * (adversarial[:, None] == clean).double()
    assert (pairs == 0.5).any()
    auc = roc(clean, adversarial).auc
    assert pairs.mean().item() == pytest.approx(auc)
    deviation = (pairs.mean(1).var() / 25 + pairs.mean(0).var() / 40).sqrt().item()
    low, high = auc_interval(clean, adversarial)
    assert 0 < low < auc < high < 1
    for bound, sign in ((low, -1), (high, 1)):
        expected = math.log(auc / (1 - auc)) + sign * 1.959964 * deviation / (auc * (1 - auc))
        assert math.log(bound / (1 - bound)) == pytest.approx(expected)


def test_without_a_difference_the_variance_is_that_of_the_rank_sum_test():
    """(M + K + 1) / (12 M K), for scores that lie evenly between each other."""
    count = 2000
    clean, adversarial = torch.arange(count) * 2.0, torch.arange(count) * 2.0 + 1
    low, high = auc_interval(clean, adversarial)
    assert (high - low) / 2 / 1.959964 == pytest.approx(math.sqrt((2 * count + 1) / (12 * count**2)), rel=1e-2)


@pytest.mark.parametrize(("shift", "auc"), [(1.0, 0.76025), (2.5, 0.96145)])
def test_the_interval_covers_the_true_area(generator, shift, auc):
    """Normal scores a distance apart have the area Phi(distance / sqrt 2); 300 trials of 60 and 40 scores."""
    covered = 0
    for _ in range(300):
        clean = torch.randn(60, generator=generator)
        low, high = auc_interval(clean, torch.randn(40, generator=generator) - shift)
        covered += low <= auc <= high
    assert 0.91 <= covered / 300 <= 0.99


def test_pairs_that_rise_and_fall_together_make_the_interval_wide_not_narrow(generator):
    """Each adversarial score comes from a clean one: the area varies less from sample to sample than the interval says."""
    areas, widths = [], []
    for _ in range(100):
        clean = torch.randn(50, generator=generator)
        adversarial = clean - 1 + 0.3 * torch.randn(50, generator=generator)
        low, high = auc_interval(clean, adversarial)
        areas.append(roc(clean, adversarial).auc)
        widths.append(high - low)
    assert 2 * 1.96 * torch.tensor(areas).std() < 0.8 * torch.tensor(widths).mean()


def test_complete_separation_has_wilsons_interval_for_the_smaller_kind():
    clean, adversarial = torch.arange(100.0), -1 - torch.arange(50.0)
    low, high = auc_interval(clean, adversarial)
    assert high == 1 and low == pytest.approx(wilson_interval(50, 50)[0])
    assert auc_interval(adversarial, clean) == pytest.approx((0.0, 1 - low))


@pytest.mark.parametrize(
    ("clean", "adversarial", "mention"),
    [(GOOD[:1], GOOD, "clean"), (GOOD, GOOD[:1], "adversarial"), (GOOD, torch.tensor([0.0, torch.nan]), "NaN")],
    ids=["one clean", "one adversarial", "nan"],
)
def test_too_few_scores_have_no_interval(clean, adversarial, mention):
    with pytest.raises(ValueError, match=mention):
        auc_interval(clean, adversarial)
