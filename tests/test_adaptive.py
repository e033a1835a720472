"""Adaptive PixelDefend: the rule for its threshold, and records put together from those with and without purification."""

import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend import PixelDefend, attacks, predict
from pixeldefend.study import Record
from pixeldefend.study.adaptive import (
    Outcome,
    adaptive_record,
    as_plain,
    choose_threshold,
    outcomes,
    strongest_accuracy,
    thresholds,
)
from pixeldefend.study.purification.figures import threshold_figure

LIKELY, MIDDLING, UNLIKELY = 2.05, 3.05, 4.05


def outcome(*images: tuple[float, bool, bool]) -> Outcome:
    """Of images given as (bits, right as it is, right purified)."""
    return Outcome(*map(list, zip(*images, strict=True)))


HARMLESS = outcome((LIKELY, True, True), (UNLIKELY, True, True))


def test_the_threshold_leaves_alone_what_purification_does_not_help():
    found = {
        "clean": outcome((LIKELY, True, False)),
        "fgsm 8": HARMLESS,
        "bim 8": outcome((LIKELY, False, False), (MIDDLING, True, False), *2 * [(UNLIKELY, False, True)]),
    }
    threshold = choose_threshold(found, [8])
    assert MIDDLING < threshold < UNLIKELY
    assert strongest_accuracy(found, 8, threshold) == pytest.approx(3 / 4)
    assert strongest_accuracy(found, 8, 0.0) == pytest.approx(2 / 4), "everything purified"
    assert strongest_accuracy(found, 8, 9.0) == pytest.approx(1 / 4), "nothing purified"
    assert thresholds(found)[-1] > UNLIKELY


def test_every_eps_counts_and_so_does_either_attack():
    helped_at_25 = outcome((MIDDLING, False, True), (UNLIKELY, True, True))
    found = {"fgsm 8": HARMLESS, "bim 8": HARMLESS, "fgsm 25": HARMLESS, "bim 25": helped_at_25}
    assert choose_threshold(found, [8]) > UNLIKELY, "at eps 8 nothing need be purified"
    assert LIKELY < choose_threshold(found, [8, 25]) < MIDDLING
    assert LIKELY < choose_threshold(found | {"bim 25": HARMLESS, "fgsm 25": helped_at_25}, [8, 25]) < MIDDLING


def test_images_at_the_threshold_are_left_alone_as_the_defence_does():
    assert outcome((2.0, True, False)).accuracy(2.0) == 1
    assert outcome((2.0, True, False)).accuracy(1.999) == 0


class Brightness(nn.Module):
    """Ten classes by mean brightness."""

    def forward(self, pixels):
        return -100 * (pixels.mean((1, 2, 3))[:, None] - torch.linspace(0.3, 0.7, 10)).square()


def test_outcomes_are_those_of_the_attacks_and_the_defence():
    density, net, images = small_density(1), Brightness().eval(), random_images(6, 1, 8, 8)
    labels = predict(net, images)
    found = outcomes(net, density, images, labels, eps_attacks=[4], eps_defend=16)
    assert list(found) == ["clean", "fgsm 4", "bim 4", "deepfool 4", "carlini_wagner 4"]
    assert found["clean"].right == [True] * 6
    attacked = attacks.bim(net, images, labels, eps=4)
    assert found["bim 4"].bits == pytest.approx(density.bits_per_dim(attacked).tolist(), abs=1e-5)
    assert found["bim 4"].right == (predict(net, attacked) == labels).tolist()
    purified = PixelDefend(density, eps_defend=16)(attacked)
    assert found["bim 4"].right_purified == (predict(net, purified) == labels).tolist()
    assert found["deepfool 4"].right == (predict(net, attacks.deepfool(net, images, labels, eps=4)) == labels).tolist()
    assert {name: Outcome(**values) for name, values in as_plain(found).items()} == found


def record(predictions: list[int], bits: list[float]) -> Record:
    return Record({}, [0, 1, 2], [0, 1, 2], predictions, bits)


def test_a_record_takes_each_image_as_it_is_or_purified():
    mixed = adaptive_record(record([5, 5, 5], [1.0, 2.0, 3.0]), record([7, 7, 7], [0.1, 0.2, 0.3]), 2.0, {"threshold": 2.0})
    assert mixed.predictions == [5, 5, 7] and mixed.bits_per_dim == [1.0, 2.0, 0.3]
    assert mixed.labels == [0, 1, 2] and mixed.config == {"threshold": 2.0}


def test_it_has_the_images_of_both():
    fewer = Record({}, [0, 1], [0, 1], [7, 7], [0.1, 0.2])
    mixed = adaptive_record(record([5, 5, 5], [1.0, 3.0, 3.0]), fewer, 2.0, {})
    assert mixed.index == [0, 1] and mixed.predictions == [5, 7] and mixed.bits_per_dim == [1.0, 0.2]


@pytest.mark.parametrize("plain", [record([5, 5, 5], []), Record({}, [0, 1], [1, 0], [5, 5], [1.0, 2.0])])
def test_records_that_do_not_go_together_are_refused(plain):
    with pytest.raises(ValueError, match="same images"):
        adaptive_record(plain, record([7, 7, 7], [1.0, 2.0, 3.0]), 2.0, {})


def test_the_figure_draws_the_accuracies_and_both_thresholds():
    found = {"clean": HARMLESS, "fgsm 8": HARMLESS, "bim 8": outcome((MIDDLING, False, True), (UNLIKELY, True, True))}
    lines = threshold_figure(found, [8], paper=1.8).axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["clean", "strongest attack, eps 8", "ours", "paper"]
    assert list(lines[1].get_ydata()) == [100 * strongest_accuracy(found, 8, t) for t in thresholds(found)]
    assert lines[2].get_xdata()[0] == choose_threshold(found, [8]) and lines[3].get_xdata()[0] == 1.8
