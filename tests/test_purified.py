"""Purified images: the panels, the p-values before and after, and the figure's numbers."""

from types import SimpleNamespace

import pytest
import torch
from matplotlib import pyplot as plt
from nets import random_images, small_density
from torch import nn

from pixeldefend import PixelDefend, roc
from pixeldefend.images import Images
from pixeldefend.study import Record, available
from pixeldefend.study.conditions import ATTACKS, attacks_with_eps
from pixeldefend.study.purification import purified
from pixeldefend.study.purification.figures import galleries, purified_bits
from pixeldefend.study.purification.purified import WRONG, Panel

CLASSES = tuple("abcdefghij")


class AlwaysB(nn.Module):
    def forward(self, pixels):
        return torch.eye(10)[1].expand(len(pixels), 10)


def record(bits, predictions=(0, 0, 0, 0)) -> Record:
    return Record({}, [0, 1, 2, 3], [0, 0, 0, 0], list(predictions), bits)


@pytest.fixture
def lab():
    """Four images; BIM fools the classifier on the third, which is wrong about the first without it."""
    images, labels = random_images(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])

    def records(condition):
        if condition.defence == "pixeldefend":
            return record([1.0, 1.5, 2.0, 2.5])
        if condition.attack == "clean":
            return record([2.0, 3.0, 4.0, 5.0], (3, 0, 0, 0))
        return record([6.0, 7.0, 8.0, 9.0], (1, 0, 1, 0))

    def attacked(condition, limit):
        return (images + (0 if condition.attack == "clean" else 1 + ATTACKS.index(condition.attack)))[:limit]

    def cells(rows, attacks=ATTACKS):
        every = [(row, *cell) for row in rows for cell in attacks_with_eps("fashion-mnist", attacks)]
        return {(row, attack, eps): records(row.condition("fashion-mnist", attack, eps)) for row, attack, eps in every}

    return SimpleNamespace(
        data_set="fashion-mnist", precision="float32", density=small_density(1), profile=SimpleNamespace(gallery=3),
        test=Images("fashion-mnist", "test", images, labels, CLASSES, "toy"), classifier=lambda: AlwaysB().eval(),
        record=records, cells=cells, attacked=attacked, reference=lambda split: record([2.5, 3.5, 4.5, 5.5]),
    )  # fmt: skip


def test_wrong_classes_are_marked(lab):
    assert purified.class_names(lab.test, torch.tensor([2, 1]), torch.tensor([2, 2])) == ["c", WRONG + "b"]


def test_the_image_shown_is_the_first_that_is_right_until_it_is_attacked(lab):
    assert available.first_fooled(lab, 8) == 2


def test_figure_4_purifies_one_image_after_every_attack(lab):
    panel = purified.one_image(lab, 8)
    before, after = panel.rows["before"], panel.rows["purified"]
    assert [int(image[0, 0, 0]) for image in before] == [int(lab.test.images[2, 0, 0, 0] + n) for n in range(6)]
    assert torch.equal(after, PixelDefend(lab.density, eps_defend=32)(before))
    assert panel.titles == ["clean", "RAND", "FGSM", "BIM", "DeepFool", "CW"]
    assert panel.captions["purified"] == [WRONG + "b"] * 6  # the label is a


def test_a_gallery_has_the_profile_s_number_of_images(lab):
    panel = purified.gallery(lab, "fgsm", 25)
    assert list(panel.rows) == ["clean", "FGSM", "purified"]
    assert all(len(images) == 3 for images in panel.rows.values())
    assert torch.equal(panel.rows["purified"], PixelDefend(lab.density, eps_defend=32)(lab.test.images[:3] + 2))
    assert panel.captions["clean"] == [WRONG + "b", "b", WRONG + "b"] and panel.right("clean") == 1


def test_p_values_are_against_the_held_out_images(lab):
    before, after = purified.p_values_before_and_after(lab)
    assert len(before) == len(after) == 11  # clean, five attacks at two radii
    assert before["clean", 0].tolist() == [1.0, 0.8, 0.6, 0.4]  # more likely than four, three, two, one of four
    assert after["bim", 25].tolist() == [1.0, 1.0, 1.0, 1.0]
    bits, _ = purified.bits_before_and_after(lab)
    assert bits["fgsm", 8].tolist() == [6, 7, 8, 9]


def test_the_table_compares_with_the_clean_images_as_they_are(lab):
    before, after = purified.p_values_before_and_after(lab)
    lines = purified.purified_detection_table(before, after).splitlines()[2:]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.strip("|").split("|")] for line in lines}
    assert len(cells) == 11 and cells["clean"][1:3] == ["4", ""]
    auc = roc(before["clean", 0], after["clean", 0]).auc
    assert cells["clean"][3].startswith(f"**{auc:.3f}**")
    assert cells["BIM, eps 8"][2].startswith("**1.000**")
    assert cells["BIM, eps 8"][7].startswith("**0.500**") and cells["clean"][7] == "", "all are purified to the same scores"
    assert all(cell.startswith("**0.0**") for cell in cells["BIM, eps 8"][4:6])


def test_the_curves_are_of_purified_images_against_clean_ones_as_they_are(lab):
    before, after = purified.p_values_before_and_after(lab)
    curves = purified.roc_after(before, after, 25)
    assert list(curves) == ["clean", *ATTACKS]
    assert curves["bim"].auc == roc(before["clean", 0], after["bim", 25]).auc < 0.5


def test_the_words_are_shares_of_both_ends():
    clean = torch.tensor([0.01, 0.5, 0.7, 0.99])
    before = {("clean", 0): clean} | {(attack, 8): torch.tensor([0.01, 0.01, 0.01, 0.9]) for attack in ATTACKS}
    after = {("clean", 0): torch.tensor([0.96, 1.0])} | {(attack, 8): torch.tensor([0.9, 0.99]) for attack in ATTACKS}
    after["bim", 8] = torch.tensor([0.99, 1.0])
    text = purified.in_words(before, after, 8)
    assert "75 to 75 %" in text and "0 to 0 %" in text and "50 to 100 %" in text
    assert "100 % of the purified clean ones" in text and text.endswith("of clean images as they are, 25 %.")


def test_histograms_of_purified_images_are_dashed():
    scores = torch.tensor([1.0, 2.0, 3.0])
    figure = purified_bits({"cifar10": {"clean": scores, "fgsm": scores + 1, "FGSM, purified": scores}})
    (axes,) = figure.axes
    clean, attacked, after = (patch.get_linestyle() for patch in axes.patches)
    assert clean == attacked != after
    assert axes.get_legend().get_texts()[2].get_text() == "FGSM, purified (mean 2.00)"
    plt.close(figure)


def test_galleries_of_two_data_sets_stand_below_each_other():
    images = random_images(2, 1, 8, 8)
    grey = Panel({"before": images, "after": images}, {"after": ["x", "y"]}, ["A", "B"])
    colour = Panel({"before": random_images(2, 3, 8, 8)}, {}, [])
    figure = galleries({"fashion-mnist": grey, "cifar10": colour})
    assert [len(part.axes) for part in figure.subfigs] == [4, 2]
    first = figure.subfigs[0].axes
    assert [axes.get_title() for axes in first[:2]] == ["A", "B"] and first[3].get_xlabel() == "y"
    plt.close(figure)
