"""What attacks change, and the likelihood of what they find when it is rounded to the nearest levels."""

from types import SimpleNamespace

import pytest
import torch
from nets import random_images

from pixeldefend.study.conditions import ATTACKS
from pixeldefend.study.detection import perturbations


class Density:
    calls = 0

    def bits_per_dim(self, images, *, precision):
        self.calls += 1
        return images.float().mean((1, 2, 3))


class Test:
    images = random_images(2, 1, 4, 4).clamp(20, 200)


def test_figure_1_shows_what_every_attack_makes_of_the_first_fooled_image(monkeypatch):
    lab = StandIn()
    lab.profile = SimpleNamespace(images_for=lambda condition: {"bim": 5, "rand": None}.get(condition.attack, 2))
    lab.test = SimpleNamespace(images=Test.images, classes=[f"class {c}" for c in range(10)])
    lab.attacked = lambda condition, limit: Test.images[:limit] + len(condition.attack)
    lab.classifier = lambda: "net"
    monkeypatch.setattr(perturbations, "first_fooled", lambda lab, eps, among: {(8, 2): 1}[eps, among])
    monkeypatch.setattr(perturbations, "predict", lambda net, images: torch.arange(len(images)))
    figure = perturbations.one_image(lab)
    above, below = figure.axes[:6], figure.axes[6:]
    assert [axes.get_title() for axes in above] == ["clean", "RAND", "FGSM", "BIM", "DeepFool", "CW"]
    assert [axes.get_xlabel() for axes in below] == [f"class {c}" for c in range(6)]
    shown = [torch.as_tensor(axes.images[0].get_array()) for axes in above]
    assert torch.equal(shown[0], Test.images[1, 0])
    assert [int((image.int() - shown[0].int()).unique()) for image in shown[1:]] == [len(attack) for attack in ATTACKS]


class StandIn:
    """A lab in which every attack adds the length of its name to one sub-pixel, and one level less if rounded to nearest."""

    data_set, density_fingerprint, precision, test = "fashion-mnist", "print", "float32", Test()

    def __init__(self):
        self.density, self.kept, self.attacks = Density(), {}, 0

    def configuration(self, condition):
        return {"attack": condition.attack, "density": "print", "precision": "float32"}

    def attacked(self, condition):
        self.attacks += 1
        images = self.test.images.clone()
        images[0, 0, 1, 2] += len(condition.attack) - (condition.rounding == "nearest")
        assert condition.eps == 8
        return images

    def measurement(self, name, config, measure):
        key = (name, str(config))
        if key not in self.kept:
            self.kept[key] = measure()
        return self.kept[key]


def test_what_is_rounded_to_nearest_is_scored_once_and_depends_on_the_density():
    lab = StandIn()
    found = perturbations.bits_rounded_to_nearest(lab)
    assert perturbations.bits_rounded_to_nearest(lab) == found and lab.density.calls == 2
    clean = lab.test.images.float().mean((1, 2, 3))
    assert found["deepfool"] == pytest.approx([clean[0].item() + 7 / 16, clean[1].item()])
    assert found["carlini_wagner"] == pytest.approx([clean[0].item() + 13 / 16, clean[1].item()])
    assert all("print" in config for _, config in lab.kept)


def test_changes_are_counted_in_levels_and_do_not_depend_on_the_density():
    lab = StandIn()
    found = perturbations.changes(lab)
    assert list(found) == [*ATTACKS, "DeepFool, nearest", "CW, nearest"]
    assert found["fgsm"] == {"mean": [4 / 16, 0.0], "largest": [4, 0]}
    assert found["CW, nearest"] == {"mean": [pytest.approx(13 / 16, abs=1e-4), 0.0], "largest": [13, 0]}
    assert perturbations.changes(lab) == found and lab.attacks == 7
    assert not any("print" in config for _, config in lab.kept)


def test_changes_are_tabled_with_intervals():
    head, rule, *lines = perturbations.changes_table(
        {"rand": {"mean": [1.0, 3.0], "largest": [8, 8]}, "CW, nearest": {"mean": [0.0, 0.0], "largest": [0, 0]}}
    ).splitlines()
    assert head.count("|") == rule.count("|") == lines[0].count("|") == 5
    assert lines[0] == "| RAND | 2 | **2.00**<br>[0.04,&nbsp;3.96] | **8.00**<br>[8.00,&nbsp;8.00] |"
    assert lines[1].startswith("| CW, nearest | 2 | **0.00**")
