"""The study: the paper's grid, records on disk, tables, and a whole lab on a toy data set."""

import json
import os
import time

import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend.images import Images
from pixeldefend.study import Condition, Lab, Record, figures, lab, load_record, save_record, tables
from pixeldefend.study.conditions import attacks_with_eps, paper_accuracy


def record(labels, predictions, bits=None, **config):
    count = len(labels)
    return Record(config, list(range(count)), labels, predictions, bits or [1.0] * count)


@pytest.mark.parametrize(
    ("condition", "eps", "accuracy"),
    [
        (Condition("fashion-mnist"), 8, 93),
        (Condition("fashion-mnist", "bim", 25), 25, 0),
        (Condition("fashion-mnist", "fgsm", 25, defence="pixeldefend", eps_defend=32), 25, 74),
        (Condition("cifar10", "fgsm", 8, defence="pixeldefend", eps_defend=16), 8, 46),
        (Condition("fashion-mnist", "fgsm", 7), 7, None),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_the_papers_numbers_are_found(condition, eps, accuracy):
    assert paper_accuracy(condition, eps=eps) == accuracy


def test_conditions_have_distinct_names():
    every = [Condition("fashion-mnist", a, e) for a, e in attacks_with_eps("fashion-mnist")]
    every += [Condition("fashion-mnist", a, e, "pixeldefend", 32) for a, e in attacks_with_eps("fashion-mnist")]
    assert len({c.name for c in every}) == len(every) == 14


def test_a_record_comes_back_as_it_was_written(tmp_path):
    first = record([1, 2], [1, 3], [2.5, 3.25], attack="fgsm", eps=8)
    save_record(first, tmp_path / "new folder" / "a.json")
    again = load_record(tmp_path / "new folder" / "a.json")
    assert again == first and again.accuracy == 0.5
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["a.json"], "nothing half-written is left"


@pytest.mark.parametrize("before, after", [("[1, 3]", "[1, 2]"), ('"eps": 8', '"eps": 9'), ("2.5", "2.6")])
def test_a_record_edited_by_hand_is_noticed(tmp_path, before, after):
    path = tmp_path / "a.json"
    save_record(record([1, 2], [1, 3], [2.5, 3.25], eps=8), path)
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ValueError, match="was changed after"):
        load_record(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {}}'], ids=["empty", "cut", "list", "incomplete"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="a.json is no record"):
        load_record(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962), (900, 1000, 0.8799, 0.9171)],
)
def test_wilson_intervals(successes, trials, low, high):
    assert tables.wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("successes", "trials", "text"), [(0, 1000, "[0,&nbsp;1]"), (900, 1000, "[87,&nbsp;92]"), (50, 100, "[40,&nbsp;60]")]
)
def test_printed_intervals_are_rounded_outward(successes, trials, text):
    assert tables.percent_interval(successes, trials) == text


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="trials"):
        tables.wilson_interval(successes, trials)


def test_the_strongest_attack_and_the_worst_case_per_image_differ():
    records = {"rand": record([0] * 4, [0, 0, 0, 1]), "fgsm": record([0] * 4, [1, 1, 0, 0])}
    assert tables.strongest(records) == ("fgsm", 0.5)
    assert tables.worst_case(records) == 0.25
    with pytest.raises(ValueError, match="rand"):
        tables.strongest({})


class Brightness(nn.Module):
    """Classifies by mean brightness, in ten steps."""

    def forward(self, pixels):
        return -(pixels.mean((1, 2, 3))[:, None] - torch.linspace(0, 1, 10)).square()


@pytest.fixture
def toy_lab(tmp_path, monkeypatch):
    density, net = small_density(1), Brightness().eval()
    images = random_images(6, 1, 8, 8)
    loads = []

    def load(name, split, *, limit=None):
        loads.append(split)
        return Images(name, split, images, torch.arange(6), tuple("abcdefghij"), "toy")

    monkeypatch.setattr(lab, "load_images", load)
    monkeypatch.setattr(lab, "load_classifier", lambda *names, **options: net)
    monkeypatch.setattr(lab.PixelCNN, "from_pretrained", lambda name: density)
    monkeypatch.setattr(lab.paths, "RECORDS", tmp_path / "committed")

    def make(**options):
        return Lab("fashion-mnist", "smoke", records=tmp_path / "records", precision="float32", **options)

    make.loads, make.density, make.folder = loads, density, tmp_path
    return make


def test_a_lab_computes_a_record_once_and_again_when_the_weights_change(toy_lab):
    condition = Condition("fashion-mnist", "rand", 8)
    first = toy_lab().record(condition)
    assert first.predictions == Brightness()(toy_lab().attacked(condition) / 255).argmax(1).tolist()
    assert torch.allclose(first.bits.float(), toy_lab.density.bits_per_dim(toy_lab().attacked(condition)), atol=1e-5)
    path = toy_lab.folder / "records" / f"{condition.name}.json"
    stamp = path.stat().st_mtime_ns
    assert toy_lab().record(condition) == first and path.stat().st_mtime_ns == stamp, "loaded, not written again"
    with torch.no_grad():
        toy_lab.density.network.head.b.add_(0.5)
    other = toy_lab().record(condition)
    assert other.bits_per_dim != first.bits_per_dim and other.config["density"] != first.config["density"]
    assert load_record(path) == other


def test_a_build_that_recomputes_computes_each_record_once(toy_lab, monkeypatch):
    condition = Condition("fashion-mnist", "rand", 8)
    path = toy_lab.folder / "records" / f"{condition.name}.json"

    def written(**options):
        toy_lab(**options).record(condition)
        return path.stat().st_mtime_ns

    first = written()
    monkeypatch.setenv("PIXELDEFEND_RECOMPUTE", str(time.time()))
    os.utime(path, (first / 1e9 - 5, first / 1e9 - 5))
    again = written()
    assert again > first, "older than the build: computed anew"
    assert written() == again, "and then loaded"
    assert written(recompute=False) == again
    os.utime(path, (first / 1e9 - 5, first / 1e9 - 5))
    assert written(recompute=True) > again


def test_a_lab_purifies_what_was_attacked_without_a_defence(toy_lab):
    here = toy_lab()
    attacked = here.attacked(Condition("fashion-mnist", "rand", 8))
    condition = here.pixeldefend("rand", 8)
    purified = here.defended(condition)
    assert condition.eps_defend == 32
    assert 0 < (purified.int() - attacked.int()).abs().max() <= 32
    assert here.record(condition).bits.mean() < here.record(Condition("fashion-mnist", "rand", 8)).bits.mean()


def test_reference_scores_are_kept_apart_and_survive_recompute(toy_lab):
    first = toy_lab().reference("held-out")
    assert len(first) == 6 and toy_lab.loads == ["held-out"]
    assert toy_lab(recompute=True).reference("held-out") == first and toy_lab.loads == ["held-out"]
    assert json.loads((toy_lab.folder / "committed/reference/fashion-mnist-held-out.json").read_text())["predictions"] == []
    assert toy_lab().detector("held-out").p_values(toy_lab().test.images).shape == (6,)
    with pytest.raises(ValueError, match="held-out"):
        toy_lab().reference("test")


def test_a_table_has_a_cell_for_every_attack_with_its_interval_and_the_papers_number(toy_lab):
    here = toy_lab()
    rows = [("normal", lambda a, e: Condition("fashion-mnist", a, e))]
    text = tables.accuracy_table(rows, here.record, "fashion-mnist").splitlines()
    assert text[0].count("|") == text[1].count("|") == text[2].count("|") == 9
    assert "RAND, eps 8" in text[0] and "paper&nbsp;93" in text[2] and "paper&nbsp;24" in text[2]


def test_figures_draw_what_they_are_given():
    scores = {"clean": torch.rand(50), "fgsm": torch.rand(50) + 1}
    assert [t.get_text()[:5] for t in figures.bits_histogram(scores).axes[0].get_legend().get_texts()] == ["clean", "FGSM "]
    panels = figures.p_value_histograms({"clean": torch.rand(50), "RAND": torch.rand(50), "BIM": torch.rand(50)}, columns=2)
    assert [axes.get_title() for axes in panels.axes] == ["(a) clean", "(b) RAND", "(c) BIM"]
    images = random_images(3, 1, 8, 8)
    shown = figures.gallery({"one": images, "two": images[:2]}, captions={"two": ["x", "y"]})
    assert sum(bool(axes.images) for axes in shown.axes) == 5
    assert shown.axes[4].get_xlabel() == "y"


def test_unknown_profiles_are_refused():
    with pytest.raises(ValueError, match="laptop"):
        Lab("fashion-mnist", "server")
