"""Appendix A: the arithmetic by hand and as in the paper, the threshold, and the classifier as it is run."""

import pytest
import torch

from pixeldefend.study import Record
from pixeldefend.study.detection import noise


def record(bits: list[float], predictions: list[int], labels: list[int]) -> Record:
    return Record({}, list(range(len(bits))), labels, predictions, bits)


def test_the_papers_arithmetic():
    clean, rand = noise.PAPER
    assert (clean.kind, clean.above, clean.images) == ("clean", 175, 10_000)
    assert (rand.kind, rand.above) == ("rand", 9_874)
    assert 100 * clean.estimate == pytest.approx(90.6, abs=0.05)
    assert 100 * rand.estimate == pytest.approx(11.0, abs=0.05)
    assert clean.run is rand.run is None


@pytest.mark.parametrize(
    ("accuracy", "above", "images", "expected"), [(0.9, 0, 10, 0.9), (0.9, 10, 10, 0.1), (0.8, 5, 10, 0.45)]
)
def test_the_estimate_mixes_the_classifier_and_guessing(accuracy, above, images, expected):
    assert noise.estimated_accuracy(accuracy, above, images) == pytest.approx(expected)


@pytest.mark.parametrize(("above", "images"), [(1, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(above, images):
    with pytest.raises(ValueError, match="above"):
        noise.estimated_accuracy(0.5, above, images)


def test_the_threshold_is_reached_by_the_share_asked_for(generator):
    bits = torch.rand(1000, generator=generator, dtype=torch.float64)
    for share in (0.001, 0.0175, 0.5, 1.0):
        assert (bits >= noise.matching_threshold(bits, share=share)).sum() == round(1000 * share)
    by_default = noise.matching_threshold(bits.repeat(4)[:4000] + torch.arange(4000) * 1e-9)
    assert (bits >= by_default).sum() in (17, 18), "the paper's 1.75 %"
    assert noise.matching_threshold(bits[:3]) == bits[:3].max(), "of few images, at least one"


@pytest.mark.parametrize(("count", "share"), [(0, 0.1), (5, 0.0), (5, 1.1)])
def test_impossible_shares_are_refused(count, share):
    with pytest.raises(ValueError, match="share"):
        noise.matching_threshold(torch.ones(count), share=share)


def test_the_classifier_answers_below_the_threshold_and_guesses_from_it_on():
    images = 5000
    bits = [2.0, 4.5, 5.0, 4.4999] * (images // 4)
    found = noise.noise_sensitive_predictions(record(bits, [3] * images, [3] * images), 4.5)
    below = torch.tensor(bits) < 4.5
    assert (found[below] == 3).all()
    guesses = torch.bincount(found[~below], minlength=10)
    assert len(guesses) == 10 and (guesses - 250).abs().max() < 80, "all ten labels, about equally often"


def test_the_guesses_come_from_the_seed_and_do_not_depend_on_the_threshold():
    many = record([float(n) for n in range(100)], [0] * 100, [0] * 100)
    first, again, other = (noise.noise_sensitive_predictions(many, 50.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    lower = noise.noise_sensitive_predictions(many, 20.0, seed=1)
    assert torch.equal(lower[50:], first[50:])


def test_records_without_bits_are_refused():
    with pytest.raises(ValueError, match="bits"):
        noise.noise_sensitive_predictions(record([], [1, 2], [1, 2]), 4.5)


def test_an_outcome_counts_what_its_classifier_gets_right():
    images = record([1.0, 2.0, 3.0, 4.0], [7, 7, 7, 7], [7, 0, 7, 7])
    right = noise.noise_sensitive_predictions(images, 3.0) == torch.tensor(images.labels)
    found = noise.outcome("rand", images, 3.0)
    assert (found.images, found.above, found.accuracy) == (4, 2, 0.75)
    assert found.run == right.sum() and right[0] and not right[1]
    assert found.estimate == pytest.approx(0.75 / 2 + 0.1 / 2)
    everything = noise.outcome("clean", images, 9.0)
    assert (everything.above, everything.run, everything.estimate) == (0, 3, 0.75)


def test_the_table_has_counts_with_intervals_and_leaves_out_what_was_not_run():
    lines = noise.noise_table([*noise.PAPER, noise.Outcome("RAND, eps 25", 4.8, 100, 50, 0.9, 52)]).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert {len(row) for row in cells} == {7}
    assert cells[2][:4] == ["clean", "4.50", "10000", "175: **1.8**<br>[1.5,&nbsp;2.1]"]
    assert cells[2][4:] == ["**92.0**<br>[91.4,&nbsp;92.6]", "90.6", ""]
    assert cells[3][0] == "RAND" and cells[3][5] == "11.0"
    assert cells[4][:4] == ["RAND, eps 25", "4.80", "100", "50: **50.0**<br>[40.3,&nbsp;59.7]"]
    assert cells[4][4:] == ["**90.0**<br>[82.5,&nbsp;94.5]", "50.0", "**52.0**<br>[42.3,&nbsp;61.6]"]


def test_a_summary_has_the_numbers_of_both_kinds():
    clean, noisy = noise.Outcome("clean", 4.5, 200, 3, 0.9, 176), noise.Outcome("rand", 4.5, 100, 98, 0.8, 12)
    assert noise.noise_summary(clean, noisy).replace("&nbsp;", " ") == (
        "1.5 % of 200 clean images and 98.0 % of 100 noisy ones reach 4.50 bits per dimension; "
        "ResNet' classifies 88.0 % and 12.0 % correctly, the ResNet 90.0 % and 80.0 %."
    )
    for other in (noise.PAPER[1], noise.Outcome("rand", 4.6, 100, 98, 0.8, 12)):
        with pytest.raises(ValueError, match="same threshold"):
            noise.noise_summary(clean, other)
