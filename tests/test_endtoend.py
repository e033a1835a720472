"""Attacks on classifier and purification together: what is measured, how it is counted, and that a lab measures it once."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend import PixelDefend, predict
from pixeldefend.attacks import bim, bpda
from pixeldefend.defenses import UnrolledPurification, gradient_flow
from pixeldefend.study.conditions import EPS_ATTACK, PROFILES
from pixeldefend.study.endtoend import attacks as endtoend
from pixeldefend.study.endtoend import controls as endtoend_controls
from pixeldefend.study.endtoend import figures as endtoend_figures
from pixeldefend.study.endtoend import tables as endtoend_tables
from pixeldefend.study.endtoend.attacks import SIZES, TEMPERATURES, Sizes, Watched
from pixeldefend.study.endtoend.tables import Outcome

SMALL = Sizes(images=12, steps=6, flow_images=3, bim_images=2, side=4)


def small_net() -> nn.Module:
    """A random classifier whose predictions a few levels can change."""
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10))
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.0, 2.0, generator=generator)
    nn.init.zeros_(net[-1].bias)  # or one class wins everywhere
    return net.eval()


@pytest.fixture(scope="module")
def lab():
    """Random images, a toy density, and a classifier that is right about all purified images but the first."""
    density, net, images = small_density(1), small_net(), random_images(12, 1, 8, 8, seed=3)
    labels = predict(net, PixelDefend(density, eps_defend=32)(images))
    labels[0] = (labels[0] + 1) % 10
    kept = {}

    def measurement(name, config, measure):
        if kept.get(name, (None,))[0] != config:
            kept[name] = config, measure()
        return kept[name][1]

    return SimpleNamespace(
        data_set="fashion-mnist", precision="float32", density=density, density_fingerprint="toy", kept=kept,
        test=SimpleNamespace(images=images, labels=labels, classes="abcdefghij"), classifier=lambda: net,
        profile=SimpleNamespace(gallery=5), profile_name="smoke", measurement=measurement, progress=False,
        attacked=lambda condition, limit: bim(net, images[:limit], labels[:limit], eps=condition.eps),
    )  # fmt: skip


@pytest.fixture(scope="module")
def around(lab):
    return endtoend.around_purification(lab, SMALL)


@pytest.fixture(scope="module")
def through(lab):
    return endtoend.through_purification(lab, SMALL)


def test_every_data_set_has_sizes_for_every_profile(lab):
    assert set(SIZES) == set(EPS_ATTACK) and all(set(sizes) == set(PROFILES) for sizes in SIZES.values())
    assert endtoend.sizes_of(lab) == SIZES["fashion-mnist"]["smoke"]


def test_bpda_is_measured_as_it_was_run(lab, around):
    net, images, labels = lab.classifier(), lab.test.images, lab.test.labels
    purify = PixelDefend(lab.density, eps_defend=32)
    for eps in EPS_ATTACK["fashion-mnist"]:
        cell = around["attacks"][str(eps)]["bpda"]
        attacked = bpda(net, images, labels, purify=purify, eps=eps, steps=6)
        assert cell["predictions"] == predict(net, purify(attacked)).tolist()
        assert cell["bits"] == pytest.approx(lab.density.bits_per_dim(attacked).tolist(), rel=1e-4)
        change = (attacked.double() - images.double()).abs().mean((1, 2, 3))
        assert cell["mean_change"] == pytest.approx(change.tolist(), rel=1e-4)
        shown = around["gallery"][str(eps)]
        assert torch.equal(endtoend.unpacked(shown["bpda"]), attacked[:5])
        assert torch.equal(endtoend.unpacked(shown["purified"]), purify(attacked)[:5])
        loss = nn.functional.cross_entropy(net(purify(attacked) / 255), labels, reduction="none")
        assert cell["loss"] == pytest.approx(loss.tolist(), rel=1e-4)


def test_first_wrong_is_the_step_at_which_a_shorter_attack_succeeds(lab, around):
    net, images, labels = lab.classifier(), lab.test.images, lab.test.labels
    purify = PixelDefend(lab.density, eps_defend=32)
    cell = around["attacks"]["25"]["bpda"]
    counts = endtoend.right_after(cell["first_wrong"], 6)
    left = [bpda(net, images, labels, purify=purify, eps=25, steps=steps) for steps in (1, 3, 6)]
    assert [counts[n] for n in (1, 3, 6)] == [int((predict(net, purify(x)) == labels).sum()) for x in left]
    assert counts[0] == 11 and cell["first_wrong"][0] == 0 and counts[6] < counts[1] <= 11, "some fall, and not all at once"
    assert sum(p == y for p, y in zip(cell["predictions"], labels.tolist(), strict=True)) == counts[6]


def test_clean_images_and_the_unaware_attack_are_measured_too(lab, around):
    net, images, labels = lab.classifier(), lab.test.images, lab.test.labels
    purify = PixelDefend(lab.density, eps_defend=32)
    assert around["labels"] == labels.tolist()
    assert around["clean"]["predictions"] == predict(net, purify(images)).tolist()
    assert around["clean"]["bits"] == pytest.approx(lab.density.bits_per_dim(images).tolist(), rel=1e-4)
    attacked = bim(net, images, labels, eps=8)
    assert around["attacks"]["8"]["bim"]["predictions"] == predict(net, purify(attacked)).tolist()
    assert around["attacks"]["8"]["bim"]["bits"] == pytest.approx(lab.density.bits_per_dim(attacked).tolist(), rel=1e-4)


def test_the_flow_is_that_of_the_images_middle(lab, through):
    images, labels, net = lab.test.images[:3, :, 2:6, 2:6], torch.tensor(through["labels"]), lab.classifier()
    greedy = PixelDefend(lab.density, eps_defend=32)(images)
    assert [row["temperature"] for row in through["flow"]] == list(TEMPERATURES)
    for row in through["flow"][:2]:
        purification = UnrolledPurification(lab.density, eps_defend=32, temperature=row["temperature"])
        flow = gradient_flow(purification, net, images, labels)
        before, after = flow.incoming.flatten(1), flow.outgoing.flatten(1)
        assert row["incoming"] == pytest.approx(before.norm(dim=1).tolist(), rel=1e-4)
        assert row["outgoing"] == pytest.approx(after.norm(dim=1).tolist(), rel=1e-4)
        assert np.allclose(row["chain_norms"], flow.chain_norms, rtol=1e-4, atol=1e-9)
        assert row["same_sign"] == pytest.approx((before.sign() == after.sign()).double().mean(1).tolist())
        levels = (purification(images / 255) * 255 - greedy).abs().mean((1, 2, 3))
        assert row["from_greedy"] == pytest.approx(levels.tolist(), abs=0.01)
    assert np.mean(through["flow"][0]["zero_share"]) < 0.5 < np.mean(through["flow"][-1]["zero_share"])
    assert through["clean"]["predictions"] == predict(net, greedy).tolist()


def test_bim_goes_through_the_relaxation_and_is_judged_by_greedy_purification(lab, through):
    images, labels, net = lab.test.images[:2, :, 2:6, 2:6], torch.tensor(through["labels"][:2]), lab.classifier()
    relaxed = UnrolledPurification(lab.density, eps_defend=32, temperature=endtoend.BIM_TEMPERATURE)
    attacked = bim(nn.Sequential(relaxed, net).eval(), images, labels, eps=endtoend.BIM_EPS)
    assert through["bim"]["predictions"] == predict(net, PixelDefend(lab.density, eps_defend=32)(attacked)).tolist()
    assert through["bim"]["largest_change"] == (attacked.int() - images.int()).abs().amax((1, 2, 3)).tolist()


def test_a_part_of_an_image_has_the_class_that_the_defence_sees_and_an_image_its_own(lab, through):
    assert through["labels"] == through["clean"]["predictions"]
    assert through["labels"] != lab.test.labels[:3].tolist(), "the toy classifier sees something else in the middle"
    fresh = SimpleNamespace(**vars(lab) | {"measurement": lambda name, config, measure: measure()})
    whole = endtoend.through_purification(fresh, replace(SMALL, flow_images=1, bim_images=1, side=None))
    assert whole["labels"] == lab.test.labels[:1].tolist() != whole["clean"]["predictions"]


def test_images_without_a_gradient_are_those_that_bim_returns_unchanged(lab):
    images, labels, net = lab.test.images[:2], lab.test.labels[:2], lab.classifier()
    purification = UnrolledPurification(lab.density, eps_defend=255, temperature=1e-6)  # no end of the range is near
    row = endtoend.measure_flow(purification, net, images, labels, greedy=images)
    assert row["zero_share"] == [1, 1] and endtoend_tables.standing_still(row) == 2
    assert torch.equal(bim(nn.Sequential(purification, net).eval(), images, labels, eps=8), images)
    warm = UnrolledPurification(lab.density, eps_defend=32, temperature=1.0)
    assert endtoend_tables.standing_still(endtoend.measure_flow(warm, net, images, labels, greedy=images)) == 0


def test_a_measurement_depends_on_the_weights_and_its_own_sizes(lab, around, through):
    kept = {name: config for name, (config, _) in lab.kept.items()}
    assert endtoend.around_purification(lab, SMALL) is around and endtoend.through_purification(lab, SMALL) is through
    assert kept["end-to-end-bpda"].keys() >= {"images", "steps", "data", "classifier", "density", "precision", "eps_defend"}
    assert kept["end-to-end-unrolled"].keys() >= {"flow_images", "bim_images", "side", "data", "classifier", "density"}
    assert not {"steps", "images"} & kept["end-to-end-unrolled"].keys()


def test_a_watched_purifier_refuses_other_batches():
    watched = Watched(lambda images: images, small_net(), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="3 images are not wrong yet, but 2"):
        watched(random_images(2, 1, 8, 8))


def test_the_middle_of_images():
    images = torch.arange(2 * 8 * 12).view(2, 1, 8, 12)
    assert torch.equal(endtoend.middle(images, 4), images[:, :, 2:6, 4:8]) and endtoend.middle(images, None) is images
    for side in (0, 9):
        with pytest.raises(ValueError, match="1..8"):
            endtoend.middle(images, side)


def test_images_as_text():
    for images in (random_images(3, 3, 8, 4), random_images(0, 1, 8, 8)):
        assert torch.equal(endtoend.unpacked(endtoend.packed(images)), images)


def test_denormals_are_flushed_inside_only():
    tiny = torch.tensor(1e-30)
    with pytest.raises(KeyError), endtoend.denormals_flushed():
        assert tiny * 1e-10 == 0
        raise KeyError
    assert tiny * 1e-10 > 0


RESULTS = {
    "labels": [1, 1, 2, 2],
    "clean": {"predictions": [1, 1, 2, 3], "bits": [1.0, 2.0, 3.0, 4.0]},
    "attacks": {
        "8": {
            "bim": {"predictions": [1, 0, 2, 0], "bits": [2.0, 3.0, 4.0, 9.0]},
            "bpda": {"predictions": [0, 1, 0, 0], "bits": [2.0, 9.0, 9.0, 9.0], "first_wrong": [3, 1, None, 0]},
        }
    },
}
CONTROLS = {"labels": RESULTS["labels"], "bim": {"8": {"predictions": [1, 0, 2, 2]}}, "unlimited": {"predictions": [0] * 4}}
REFERENCE = torch.linspace(0, 8, 99)


@pytest.fixture
def found():
    return endtoend_tables.outcomes(RESULTS, REFERENCE)


def test_outcomes_are_counted(found):
    assert found["clean", 0] == Outcome(images=4, right=3, flagged=0, broken=0, unseen=0, bits=2.5)
    assert found["bim", 8] == Outcome(images=4, right=2, flagged=1, broken=1, unseen=1, bits=4.5)
    assert found["bpda", 8] == Outcome(images=4, right=1, flagged=3, broken=2, unseen=1, bits=7.25)
    assert found["bpda", 8].accuracy == 25.0
    assert endtoend_tables.fooled_by_one(RESULTS, CONTROLS, 8) == (3, 1)


def test_the_outcomes_table(found):
    lines = endtoend_tables.outcome_table(found, "fashion-mnist").split("\n")
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| none |  | 4 | **75.0**<br>[30,&nbsp;96] | 88 | 2.50 | **0.0**")
    assert "| BIM, unaware of the defence | 8 | 4 | **50.0**<br>[15,&nbsp;85] | 83 | 4.50 |" in lines[3]
    assert "| BPDA | 8 | 4 | **25.0**<br>[4,&nbsp;70] |  | 7.25 | **75.0**" in lines[4] and lines[4].endswith("| 2 | 1 |")


def test_the_papers_numbers_are_those_of_pixeldefend():
    assert endtoend_tables.paper_of("fashion-mnist", "clean", 0) == 88
    assert [endtoend_tables.paper_of("cifar10", "bim", eps) for eps in (2, 8, 16)] == [71, 46, 25]


def test_the_claims_stand_side_by_side(found):
    table = endtoend_tables.claims_table({"fashion-mnist": found}).split("\n")
    assert len(table) == 5 and len({line.count("|") for line in table}) == 1
    assert table[-1] == "| this book | Fashion-MNIST | BPDA | 8 | 4 | **25.0**<br>[4,&nbsp;70] |"
    summary = endtoend_tables.broken_summary(RESULTS, CONTROLS, found, "fashion-mnist")
    assert "$\\epsilon = 8$: BIM leaves 50.0 % of 4 images" in summary and "BPDA 75.0 %, and BPDA 25.0 %" in summary
    assert "3 are wrong after BPDA only, 1 after BIM with as many steps only" in summary


def test_the_table_of_controls():
    sizes = {"fashion-mnist": Sizes(4, 50, 1, 1)}
    table = endtoend_tables.controls_table({"fashion-mnist": CONTROLS}, {"fashion-mnist": RESULTS}, sizes).split("\n")
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| Fashion-MNIST, at most 50 steps | 8 | 4 | **50.0**<br>[15,&nbsp;85] | **75.0**<br>")
    assert table[2].endswith("| **25.0**<br>[4,&nbsp;70] |")
    assert table[3].endswith("| no limit | 4 |  |  | **0.0**<br>[0,&nbsp;49] |")


def test_the_controls_are_bim_with_more_steps_and_bpda_without_a_limit(lab):
    net, images, labels = lab.classifier(), lab.test.images, lab.test.labels
    purify, found = PixelDefend(lab.density, eps_defend=32), endtoend_controls.controls(lab, SMALL)
    for eps in EPS_ATTACK["fashion-mnist"]:
        attacked = bim(net, images, labels, eps=eps, steps=SMALL.steps)
        assert found["bim"][str(eps)]["predictions"] == predict(net, purify(attacked)).tolist()
    anywhere = bpda(net, images, labels, purify=purify, eps=255, steps=SMALL.steps, step_size=8)
    assert found["unlimited"]["predictions"] == predict(net, purify(anywhere)).tolist()
    again = endtoend_controls.unaware(lab, SMALL)
    assert endtoend_controls.classes({"labels": found["labels"], "bim": again}) == endtoend_controls.classes(found)


def test_the_flow_table(through):
    lines = endtoend_tables.flow_table(through["flow"]).split("\n")
    assert len(lines) == 2 + len(TEMPERATURES) and len({line.count("|") for line in lines}) == 1
    row = {**through["flow"][0], "incoming": [2.0, 4.0, 1.0], "outgoing": [1.0, 1.0, 0.0], "zero_share": [0.5, 0.25, 1.0],
           "same_sign": [0.3, 0.45, 0.0]}  # fmt: skip
    assert endtoend_tables.flow_table([row]).endswith("| 0 to 0.5 | 1 of 3 | 58.3 | 60 |")
    still = {**row, "outgoing": [0.0] * 3, "zero_share": [1.0] * 3, "same_sign": [0.0] * 3}
    assert endtoend_tables.flow_table([still]).endswith("| 0 to 0 | 3 of 3 | 100.0 |  |")


def test_the_table_of_bim_through_the_relaxation():
    bim_cell = {"predictions": [1, 0], "loss": [2.0, 4.0], "largest_change": [0, 8]}
    through = {"labels": [1, 1, 2], "clean": {"predictions": [1, 1, 2], "loss": [1.0, 2.0, 9.0]}, "bim": bim_cell}
    around = {"attacks": {"8": {"bpda": {"predictions": [0, 0, 0, 1], "loss": [5.0, 6.0, 9.0, 9.0]}}}}  # of more images
    sizes = {"fashion-mnist": Sizes(3, 1, 3, 2), "cifar10": Sizes(3, 1, 3, 2, side=16)}
    table = endtoend_tables.through_table(dict.fromkeys(sizes, through), dict.fromkeys(sizes, around), sizes).split("\n")
    assert table[2] == "| Fashion-MNIST | 2 | 1 | 2 | 1 | 0 | 1.5 | 3 | 5.5 |"
    assert table[3] == "| CIFAR-10, the middle 16 x 16 pixels | 2 | 1 | 2 | 1 |  | 1.5 | 3 |  |"


def test_curves_of_accuracy_by_steps():
    figure = endtoend_figures.accuracy_by_steps({"fashion-mnist": RESULTS, "cifar10": RESULTS},
                                                steps={"fashion-mnist": 3, "cifar10": 5})  # fmt: skip
    left, right = figure.axes
    assert list(left.lines[0].get_ydata()) == [75, 50, 50, 25] and len(right.lines[0].get_ydata()) == 6
    assert set(left.lines[1].get_ydata()) == {50} and left.get_title() == "Fashion-MNIST"


def test_the_panel_shows_what_was_measured(lab, around):
    panel = endtoend_figures.attacked_panel(lab, around, 25)
    assert list(panel.rows) == ["clean", "BPDA", "purified"] and torch.equal(panel.rows["clean"], lab.test.images[:5])
    predictions = around["attacks"]["25"]["bpda"]["predictions"][:5]
    assert panel.right("purified") == sum(p == y for p, y in zip(predictions, around["labels"][:5], strict=True))


def test_curves_of_chains(through):
    figure = endtoend_figures.chain_panels({"fashion-mnist": through})
    (axes,) = figure.axes
    first = through["flow"][0]
    shares = np.array(first["chain_norms"]) / np.array(first["incoming"])[:, None]
    assert np.nanmax(axes.lines[3].get_ydata()) == pytest.approx(shares.mean(0).max(), rel=1e-3)
    assert len(axes.get_legend().get_texts()) == len(TEMPERATURES)
    silent = {**first, "temperature": 1e-6, "chain_norms": [[0.0]] * 3}
    (axes,) = endtoend_figures.chain_panels({"fashion-mnist": {"flow": [silent] * 4}}).axes
    assert "exactly 0" in axes.get_legend().get_texts()[0].get_text()
