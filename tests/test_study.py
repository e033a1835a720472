"""The study: a whole lab on a toy data set."""

import json
import os
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend import PixelDefend, squeeze
from pixeldefend.defenses import MedianFiltered
from pixeldefend.images import Images
from pixeldefend.study import Condition, Lab, lab, load_record
from pixeldefend.study.conditions import ADAPTIVE, ALL_ATTACKS, DEAR, LOWER_ROWS, ROUNDINGS, ROWS, TUNED, UPPER_ROWS, Profile
from pixeldefend.study.store import StaleRecord


class Brightness(nn.Module):
    """Classifies by mean brightness, in ten steps that begin at ``darkest``."""

    def __init__(self):
        super().__init__()
        self.register_buffer("darkest", torch.tensor(0.3))

    def forward(self, pixels):
        levels = self.darkest + torch.linspace(0, 0.4, 10)
        return -100 * (pixels.mean((1, 2, 3))[:, None] - levels).square()


@pytest.fixture
def toy_lab(tmp_path, monkeypatch):
    """Makes labs of six random images, of which a dear attack gets four, with a toy density of Fashion-MNIST only."""
    density, net = small_density(1), Brightness().eval()
    images = random_images(6, 1, 8, 8)
    labels = net(images / 255).argmax(1)  # so that there is something to attack
    loads, from_pretrained = [], lab.PixelCNN.from_pretrained

    def load(name, split, *, limit=None, root=None):
        loads.append(split)
        return Images(name, split, images, labels, tuple("abcdefghij"), "toy")

    monkeypatch.setitem(lab.PROFILES, "smoke", Profile(images=8, dear_images=4, gallery=4))
    monkeypatch.setattr(lab, "load_images", load)
    monkeypatch.setattr(lab, "load_classifier", lambda *names, **options: net)
    monkeypatch.setattr(lab, "saved_classifiers", lambda: ["cifar10-resnet-normal", "fashion-mnist-resnet-normal"])
    monkeypatch.setattr(lab, "shipped_densities", lambda: ["fashion-mnist"])
    real = {"fashion-mnist": density}
    monkeypatch.setattr(lab.PixelCNN, "from_pretrained", lambda name: real.get(name) or from_pretrained(name))
    monkeypatch.setattr(lab.paths, "ROOT", tmp_path)
    monkeypatch.setattr(lab.paths, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(lab.paths, "RECORDS", tmp_path / "committed")
    monkeypatch.delenv("PIXELDEFEND_RECOMPUTE", raising=False)

    def make(data_set="fashion-mnist", **options):
        return Lab(data_set, "smoke", records=tmp_path / "records", precision="float32", **options)

    make.loads, make.density, make.net, make.folder, make.images, make.labels = loads, density, net, tmp_path, images, labels
    return make


@pytest.fixture
def searches(monkeypatch):
    """Searches that brighten every pixel by 3.4 levels, and an attack "tuned" by 5; the list grows with every call."""
    calls = []

    def brighten(name, levels):
        def attack(net, images, labels, *, batch_size, eps=None, **options):
            calls.append((name, eps, len(images)))
            brighter = (images + levels).clamp(max=255)
            return brighter / 255 if eps is None else brighter.to(torch.uint8)

        return attack

    found = {name: brighten(name, 3.4) for name in ("deepfool", "carlini_wagner")}
    monkeypatch.setattr(lab.attacks, "SEARCHES", found)
    monkeypatch.setattr(lab.attacks, "carlini_wagner", brighten("tuned", 5))
    return calls


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


def test_the_repository_s_records_are_not_replaced_unless_that_is_wanted(toy_lab, monkeypatch):
    condition = Condition("fashion-mnist", "rand", 8)

    def committed(**options):
        return Lab("fashion-mnist", "laptop", **options)

    first, counts = committed().record(condition), committed().measurement("counts", {"a": 1}, lambda: {"n": 1})
    toy_lab().reference("held-out")
    assert committed().record(condition) == first
    with torch.no_grad():
        toy_lab.density.network.head.b.add_(0.5)
    with pytest.raises(StaleRecord, match=rf"{condition.name}.json was made with another density\. .*RECOMPUTE=stale"):
        committed().record(condition)
    with pytest.raises(StaleRecord, match="counts.json was made with another a and b"):
        committed().measurement("counts", {"a": 2, "b": 1}, lambda: {"n": 2})
    with pytest.raises(StaleRecord, match="held-out.json was made with another density"):
        toy_lab().reference("held-out")
    assert committed(recompute="stale").measurement("counts", {"a": 1}, lambda: {"n": 3}) == counts, "it is not stale"
    for value, error in (("0", StaleRecord), ("all", ValueError)):
        monkeypatch.setenv("PIXELDEFEND_RECOMPUTE", value)
        with pytest.raises(error, match="another density" if value == "0" else "PIXELDEFEND_RECOMPUTE, must be 'stale' or"):
            committed().record(condition)
    monkeypatch.setenv("PIXELDEFEND_RECOMPUTE", "stale")
    assert committed().record(condition) != first
    monkeypatch.delenv("PIXELDEFEND_RECOMPUTE")
    assert committed().record(condition).config["density"] != first.config["density"]


@pytest.mark.parametrize("value", [True, 1, "1"])
def test_one_means_that_everything_is_made_anew(value, toy_lab, monkeypatch):
    condition = Condition("fashion-mnist", "rand", 8)
    path = toy_lab.folder / "records" / f"{condition.name}.json"
    toy_lab().record(condition)
    os.utime(path, (time.time() - 5,) * 2)
    old = path.stat().st_mtime_ns
    if value == "1":
        monkeypatch.setenv("PIXELDEFEND_RECOMPUTE", value)
    toy_lab(recompute=None if value == "1" else value).record(condition)
    assert path.stat().st_mtime_ns > old


@pytest.mark.parametrize("value", [2, "2", "yes", "nan", -1.0, ["1"], "20260101"])
def test_what_is_no_time_would_recompute_nothing_and_is_refused(value, toy_lab):
    with pytest.raises(ValueError, match="must be 'stale' or 1 or a time, seconds since 1970"):
        toy_lab(recompute=value)


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


def test_a_record_without_bits_does_not_depend_on_the_density(toy_lab):
    condition = Condition("fashion-mnist", "rand", 8, network="vgg")
    first = toy_lab().record(condition)
    assert first.bits_per_dim == [] and len(first) == len(first.predictions) == 6
    assert not {"density", "precision"} & set(first.config)
    path = toy_lab.folder / "records" / f"{condition.name}.json"
    stamp = path.stat().st_mtime_ns
    with torch.no_grad():
        toy_lab.density.network.head.b.add_(0.5)
    assert toy_lab().record(condition) == first and path.stat().st_mtime_ns == stamp, "loaded, not written again"


def test_squeezed_images_are_classified_and_the_number_of_colours_recorded(toy_lab):
    here = toy_lab()
    condition = Condition("fashion-mnist", "rand", 25, "feature-squeezing")
    found = here.record(condition)
    squeezed = squeeze(here.attacked(condition), levels=8)
    assert found.predictions == toy_lab.net(squeezed / 255).argmax(1).tolist()
    assert found.config["squeeze_levels"] == 8
    other = toy_lab("cifar10").record(Condition("cifar10", "rand", 8, "feature-squeezing"))
    assert other.config["squeeze_levels"] == 32


def test_adaptive_purification_takes_its_threshold_from_held_out_images(toy_lab):
    here, condition = toy_lab(), Condition("fashion-mnist", "fgsm", 25, ADAPTIVE, 32)
    found = here.record(condition)
    assert "held-out" in toy_lab.loads and lab.reference_path("fashion-mnist", "held-out-resnet-normal").is_file()
    threshold = found.config["threshold"]
    assert threshold == here.threshold("resnet", "normal", 32)
    purify = PixelDefend(toy_lab.density, eps_defend=32, threshold=threshold)
    assert found.predictions == toy_lab.net(purify(here.attacked(condition)) / 255).argmax(1).tolist()
    assert torch.equal(here.defended(condition), purify(here.attacked(condition)))
    loads = len(toy_lab.loads)
    assert toy_lab(recompute=True).threshold("resnet", "normal", 32) == threshold
    assert "held-out" not in toy_lab.loads[loads:], "kept with the reference likelihoods"


def test_a_search_runs_once_for_all_that_shares_it(toy_lab, searches):
    here = toy_lab()
    for eps in (8, 25):
        for defence, eps_defend in (("none", 0), ("feature-squeezing", 0), ("pixeldefend", 32)):
            here.record(Condition("fashion-mnist", "deepfool", eps, defence, eps_defend))
            here.record(Condition("fashion-mnist", TUNED, eps, defence, eps_defend))
        for rounding in ROUNDINGS:
            here.record(Condition("fashion-mnist", "deepfool", eps, rounding=rounding))
    twice = [("deepfool", None, 4), ("tuned", 25, 4), ("tuned", 8, 4)]  # on the network, and behind the median filter
    assert Counter(searches) == Counter(twice + twice)
    for defence in ("none", "feature-squeezing"):
        here.record(Condition("fashion-mnist", "carlini_wagner", 8, defence))
    assert searches[6:] == [("carlini_wagner", None, 4)], "as published it ignores the filter"


def test_attacks_on_feature_squeezing_know_the_median_filter(toy_lab, monkeypatch):
    attacked = []
    monkeypatch.setitem(lab.attacks.ATTACKS, "bim", lambda net, images, labels, *, eps: attacked.append(net) or images)
    here = toy_lab()
    for defence in ("feature-squeezing", "none", "feature-squeezing"):
        here.attacked(Condition("fashion-mnist", "bim", 8, defence))
    assert [type(net) for net in attacked] == [MedianFiltered, Brightness]
    assert attacked[0].net is attacked[1] is toy_lab.net


def test_what_a_search_found_is_rounded_or_not_and_clipped(toy_lab, searches):
    here = toy_lab()
    dark = toy_lab.images[:4] < 240

    def change(eps, rounding):
        attacked = here.attacked(Condition("fashion-mnist", "deepfool", eps, rounding=rounding))
        levels = attacked * 255 if rounding == "none" else attacked
        return (levels.double() - toy_lab.images[:4])[dark]

    for rounding, expected in {"outward": 4, "nearest": 3, "none": 3.4}.items():
        assert change(8, rounding) == pytest.approx(expected, abs=1e-3)
        assert change(2, rounding) == pytest.approx(2, abs=1e-3)


def test_floats_are_classified_as_they_are(toy_lab, searches):
    toy_lab.images.fill_(100)
    toy_lab.net.forward = lambda pixels: -(pixels.mean((1, 2, 3))[:, None] * 255 - 100 - torch.arange(10) / 2).square()
    here = toy_lab()
    found = {r: here.record(Condition("fashion-mnist", "deepfool", 8, rounding=r)) for r in ROUNDINGS}
    # classes are half levels above 100
    assert {r: set(f.predictions) for r, f in found.items()} == {"outward": {8}, "nearest": {6}, "none": {7}}
    assert found["none"].bits_per_dim == [] and len(found["outward"].bits_per_dim) == 4


def test_stored_records_are_those_of_these_weights_on_whatever_images(toy_lab):
    condition = Condition("fashion-mnist", "fgsm", 8)
    assert toy_lab().stored(condition) is None
    made = toy_lab().record(condition)
    other = toy_lab()
    other.__dict__["test"] = None  # no images
    assert other.stored(condition).predictions == made.predictions
    with torch.no_grad():
        toy_lab.density.network.head.b += 1
    assert toy_lab().stored(condition) is None, "its bits are those of another density"


def test_an_adaptive_record_is_stored_where_its_parts_are(toy_lab):
    condition = Condition("fashion-mnist", "fgsm", 8, "adaptive-pixeldefend", 32)
    assert toy_lab().stored(condition) is None
    toy_lab().record(replace(condition, defence="none", eps_defend=0))
    assert toy_lab().stored(condition) is None
    toy_lab().record(replace(condition, defence="pixeldefend"))
    assert toy_lab().stored(condition).predictions == toy_lab().record(condition).predictions


def test_a_record_of_the_tuned_attack_names_its_search(toy_lab, searches, monkeypatch):
    """The attack is our own: a record of an earlier version of it is not one of this."""
    condition = Condition("fashion-mnist", "carlini_wagner_tuned", 8)
    first = toy_lab().record(condition)
    assert first.config["search"]["steps"] > 1
    assert "search" not in toy_lab().configuration(Condition("fashion-mnist", "carlini_wagner", 8))
    monkeypatch.setattr(lab, "tuned_search", lambda: {**first.config["search"], "steps": 1})
    assert toy_lab().record(condition).config["search"]["steps"] == 1
    assert [name for name, *_ in searches] == ["tuned"] * 2


def test_what_dear_attacks_found_is_kept_on_disk(toy_lab, searches):
    condition = Condition("fashion-mnist", "deepfool", 8)
    first = toy_lab().attacked(condition)
    path = toy_lab.folder / "cache" / "attacked" / "smoke" / "fashion-mnist-resnet-normal-deepfool.safetensors"
    assert path.is_file() and len(list(path.parent.iterdir())) == 1
    assert torch.equal(toy_lab().attacked(Condition("fashion-mnist", "deepfool", 8)), first) and len(searches) == 1
    path.write_bytes(path.read_bytes()[:-8])
    assert torch.equal(toy_lab().attacked(condition), first) and len(searches) == 2, "damaged"
    toy_lab().attacked(condition)
    assert len(searches) == 2, "and repaired"
    toy_lab.net.darkest.add_(0.1)
    toy_lab().attacked(condition)
    assert len(searches) == 3, "another classifier"
    toy_lab.images[0] = 0
    toy_lab().attacked(condition)
    assert len(searches) == 4, "other images"
    toy_lab(recompute=True).attacked(condition)
    assert len(searches) == 5


@pytest.mark.parametrize("attack", ["deepfool", TUNED])
def test_a_few_images_of_a_dear_attack_are_neither_kept_nor_computed_when_all_are_there(toy_lab, searches, attack):
    condition, here = Condition("fashion-mnist", attack, 8), toy_lab()
    few = here.attacked(condition, limit=2)
    assert not (toy_lab.folder / "cache").exists()
    every = here.attacked(condition)
    assert len(every) == 4 and torch.equal(every[:2], few)
    assert torch.equal(here.attacked(condition, limit=2), few) and torch.equal(toy_lab().attacked(condition, limit=2), few)
    assert [count for _, _, count in searches] == [2, 4]
    assert len(here.attacked(condition, limit=6)) == 4


def test_a_lab_without_a_density_measures_what_needs_none(toy_lab, searches):
    here = toy_lab("cifar10")
    found = here.record(Condition("cifar10", "deepfool", 8))
    assert not here.has_density and found.bits_per_dim == [] and "density" not in found.config
    with pytest.raises(ValueError, match="no shipped density of that name: 'cifar10-small'"):
        here.record(here.pixeldefend("fgsm", 8))
    with pytest.raises(ValueError, match="no shipped density of that name: 'cifar10-small'"):
        here.detector("held-out")
    with pytest.raises(ValueError, match="for cifar10, the condition for fashion-mnist"):
        here.record(Condition("fashion-mnist"))


def test_a_lab_says_which_rows_it_cannot_make(toy_lab):
    lacking = toy_lab().missing(ROWS)
    assert [row.title for row in ROWS if row not in lacking] == [
        "ResNet, normal", "ResNet, feature squeezing", "ResNet, normal + PixelDefend",
    ]  # fmt: skip
    assert lacking[UPPER_ROWS[1]] == "the classifier fashion-mnist-vgg-normal"
    assert toy_lab("cifar10").missing(LOWER_ROWS)[LOWER_ROWS[0]] == "a density of cifar10"


def test_a_lab_makes_the_cells_of_rows_with_the_real_attacks(toy_lab):
    rows, images, labels = (UPPER_ROWS[0], UPPER_ROWS[5], LOWER_ROWS[0]), toy_lab.images[:4], toy_lab.labels[:4]
    here = toy_lab()
    cells = here.cells(rows, ALL_ATTACKS)
    assert len(cells) == 3 * (1 + 6 * 2)
    assert here.cells(rows) == {key: record for key, record in cells.items() if key[1] != TUNED}, "the paper's attacks"
    assert all(len(record) == (4 if attack in DEAR else 6) for (_, attack, _), record in cells.items())
    direct = lab.attacks.deepfool(toy_lab.net, images, labels, eps=8)
    assert torch.equal(here.attacked(Condition("fashion-mnist", "deepfool", 8)), direct)
    tuned = lab.attacks.carlini_wagner(toy_lab.net, images, labels, eps=25, setting="tuned")
    assert torch.equal(here.attacked(Condition("fashion-mnist", TUNED, 25)), tuned)
    assert cells[UPPER_ROWS[0], TUNED, 25].accuracy == 0 and cells[UPPER_ROWS[0], "clean", 0].accuracy == 1


def test_a_profile_is_of_the_repositorys_images_wherever_these_are_enough(tmp_path, monkeypatch):
    """Another copy of CIFAR-10 has others from the 501st on, and the committed records would not be of them."""
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(bytes(3073 * 10))
    monkeypatch.setenv("PIXELDEFEND_IMAGES", str(tmp_path))
    laptop, paper = (Lab("cifar10", profile).test for profile in ("laptop", "paper"))
    assert (laptop.source, len(laptop), len(paper)) == ("embedded", 1000, 10)


def test_unknown_profiles_are_refused():
    with pytest.raises(ValueError, match="laptop"):
        Lab("fashion-mnist", "server")


def test_a_measurement_is_made_once_for_a_configuration(toy_lab):
    calls = []

    def measure():
        calls.append(len(calls))
        return {"share": 0.25, "counts": (1, 2)}

    first = toy_lab().measurement("counts", {"images": (1, 2)}, measure)
    assert first == {"share": 0.25, "counts": [1, 2]}, "as it will be read again"
    assert toy_lab().measurement("counts", {"images": (1, 2)}, measure) == first and calls == [0]
    toy_lab().measurement("counts", {"images": (1, 3)}, measure)
    assert calls == [0, 1], "another configuration"
    toy_lab(recompute=True).measurement("counts", {"images": (1, 3)}, measure)
    assert calls == [0, 1, 2]


def test_a_reference_measurement_is_not_made_again_by_a_build_that_recomputes(toy_lab):
    toy_lab().measurement("counts", {}, lambda: {"n": 1}, reference=True)
    assert toy_lab(recompute=True).measurement("counts", {}, lambda: {"n": 2}, reference=True) == {"n": 1}
    assert (toy_lab.folder / "committed" / "reference" / "fashion-mnist-counts.json").is_file()


def test_the_reference_results_of_a_density_in_a_folder_lie_with_the_others(toy_lab, tmp_path):
    """Under the folder's name, and not in the folder, nor beside it."""
    folder = tmp_path / "runs" / "mine"
    small_density(1, seed=1).save_pretrained(folder)
    before = sorted(tmp_path.glob("runs/**/*"))
    for density in (folder, str(folder)):
        here = toy_lab(density=density)
        assert here.reference("held-out").config["density"] == here.density_fingerprint
        assert here.measurement("counts", {}, lambda: {"n": 1}, reference=True) == {"n": 1}
    assert sorted(tmp_path.glob("runs/**/*")) == before
    found = sorted(path.name for path in (tmp_path / "committed" / "reference").iterdir())
    assert found == ["mine-counts.json", "mine-held-out.json"]
    assert lab.reference_path("owner/mine", "x").name == lab.reference_path("mine/", "x").name == "mine-x.json"


def test_a_measurement_edited_by_hand_is_refused(toy_lab):
    toy_lab().measurement("counts", {}, lambda: {"n": 1})
    path = toy_lab.folder / "records" / "fashion-mnist-counts.json"
    path.write_text(path.read_text().replace('"n": 1', '"n": 9'))
    with pytest.raises(ValueError, match="was changed"):
        toy_lab().measurement("counts", {}, lambda: {"n": 1})


def test_a_cpu_gets_the_small_density_and_the_paper_profile_the_best(toy_lab, monkeypatch):
    monkeypatch.setattr(lab, "shipped_densities", lambda: ["cifar10-small"])
    assert (toy_lab("cifar10").density_name, toy_lab("cifar10").has_density) == ("cifar10-small", True)
    monkeypatch.setattr(lab, "shipped_densities", lambda: ["cifar10", "cifar10-small"])
    names = {profile: Lab("cifar10", profile).density_name for profile in ("smoke", "laptop", "paper")}
    assert names == {"smoke": "cifar10-small", "laptop": "cifar10-small", "paper": "cifar10"}
    monkeypatch.setattr(lab, "shipped_densities", lambda: ["cifar10"])
    assert toy_lab("cifar10").density_name == "cifar10"
    monkeypatch.setattr(lab, "shipped_densities", lambda: [])
    assert not toy_lab("cifar10").has_density


def test_records_of_either_precision_are_loaded_unless_one_is_asked_for(toy_lab):
    condition = Condition("fashion-mnist", "rand", 8)
    folder = toy_lab.folder / "records"
    half = Lab("fashion-mnist", "smoke", records=folder, precision="bfloat16").record(condition)
    assert half.config["precision"] == "bfloat16"
    assert Lab("fashion-mnist", "smoke", records=folder).record(condition) == half
    single = Lab("fashion-mnist", "smoke", records=folder, precision="float32").record(condition)
    assert single.config["precision"] == "float32" and single.bits_per_dim != half.bits_per_dim
    assert Lab("fashion-mnist", "smoke", records=folder).record(condition) == single


def test_what_several_records_lack_is_purified_at_once_and_comes_out_the_same(toy_lab, searches, monkeypatch):
    (row,) = LOWER_ROWS[:1]
    apart = {path.name: load_record(path) for path in _records_one_by_one(toy_lab, row)}
    counts, purify = [], PixelDefend.purify

    def counting(self, images, **options):
        counts.append(len(images))
        return purify(self, images, **options)

    monkeypatch.setattr(lab.PixelDefend, "purify", counting)
    here = Lab("fashion-mnist", "smoke", records=toy_lab.folder / "together")
    here.record(row.condition("fashion-mnist", "fgsm", 8))
    together = here.cells([row], ("fgsm", "deepfool"))
    assert counts == [6, 6 + 6 + 2 * 4], "that of FGSM with eps 8 is there"
    for (_, attack, eps), record in together.items():
        one = apart[f"{row.condition('fashion-mnist', attack, eps).name}.json"]
        assert (record.predictions, record.bits_per_dim) == (one.predictions, one.bits_per_dim)
    assert not here._purified and here.cells([row], ("fgsm", "deepfool")) == together and len(counts) == 2

    monkeypatch.setattr(lab, "TOGETHER", 10)
    counts.clear()
    other = Lab("fashion-mnist", "smoke", records=toy_lab.folder / "in groups")
    assert [record.predictions for record in other.cells([row], ("fgsm", "deepfool")).values()] == [
        record.predictions for record in together.values()
    ]
    assert counts == [6, 6, 6 + 4, 4], "no more than ten images at once"


def _records_one_by_one(toy_lab, row):
    here = toy_lab()
    for attack, eps in (("clean", 0), ("fgsm", 8), ("fgsm", 25), ("deepfool", 8), ("deepfool", 25)):
        here.record(row.condition("fashion-mnist", attack, eps))
    return here.records.glob("*.json")
