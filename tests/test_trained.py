"""What the chapter on models shows: shipped densities and classifiers, samples, and the data sets."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from nets import random_images

from pixeldefend.images import Images
from pixeldefend.study.shipped import curves, trained
from pixeldefend.study.shipped.trained import Density


def density(name="toy", data_set="cifar10", *, bits=3.1) -> Density:
    scores = {"images_seen": 1200, "settings": {"training_images": 1000}, "training_seconds": 5400, "test_images": 400,
              "test_bits_per_dim": bits, "test_bits_per_dim_std": 1.0}  # fmt: skip
    log = [{"images": 100, "bits_per_dim": 5.0}, {"images": 200, "bits_per_dim": 4.0}]
    return Density(name, data_set, 1234, 6, 1, scores, log)


def cells(table: str) -> list[list[str]]:
    found = [[cell.strip(" |") for cell in line.split(" | ")] for line in table.splitlines()]
    assert len({len(row) for row in (found[0], *found[2:])}) == 1
    return found[2:]


def test_densities_are_those_that_are_shipped():
    found = trained.densities()
    assert [of.name for of in found] == [n for names in trained.DENSITIES.values() for n in names
                                         if n in trained.shipped_densities()]  # fmt: skip
    first = found[0]
    assert (first.name, first.filters, first.blocks, first.parameters) == ("fashion-mnist", 40, 5, 3_369_500)
    assert first.log[0]["images"] < first.log[-1]["images"] <= first.scores["images_seen"]


def test_images_and_hours_of_earlier_runs_count():
    of = density()
    assert of.history == "in one run, with Adam"
    of.scores.update({"images_seen_before": 800, "training_seconds_before": 1800})
    of.scores["settings"]["optimizer"] = "muon"
    assert (of.images, of.epochs, of.hours) == (2000, 2.0, 2.0)
    assert of.history == "the first 800 of them in an earlier run, the others with Muon and Adam"
    of.scores["earlier_runs"] = [{}, {}]
    assert of.history == "the first 800 of them in 2 earlier runs, the others with Muon and Adam"
    (row,) = cells(trained.density_table([of]))
    assert row[4:7] == ["2,000", "2.0", "2.0"]
    (axes,) = curves.of_densities([of]).axes
    assert list(axes.lines[0].get_xdata()) == [0.9, 1.0], "the curve begins where the earlier run ended"


def test_the_table_of_densities_has_an_interval_for_the_mean():
    (row,) = cells(trained.density_table([density()]))
    assert row[:7] == ["CIFAR-10 (`toy`)", "6", "1", "1,234", "1,200", "1.2", "1.5"]
    assert row[7:] == ["**3.100**<br>[3.002,&nbsp;3.198]", "400", "3.0"]


def test_each_density_has_a_panel_with_its_curve_and_both_means():
    figure = curves.of_densities([density(), density("other", "fashion-mnist", bits=2.9)])
    assert [axes.get_title() for axes in figure.axes] == ["CIFAR-10 (toy)", "Fashion-MNIST (other)"]
    curve, test, paper = figure.axes[1].get_lines()
    assert list(curve.get_ydata()) == [5.0, 4.0] and test.get_ydata()[0] == 2.9 and paper.get_ydata()[0] == 2.7


def test_each_classifier_has_a_curve_and_a_second_one_for_attacked_images(tmp_path):
    for training, log in (("normal", {}), ("adversarial-fgsm", {"adversarial_accuracy": 0.25})):
        folder = tmp_path / f"cifar10-resnet-{training}"
        folder.mkdir()
        lines = [json.dumps({"images": images, "accuracy": 0.5, **log}) for images in (100, 300)]
        (folder / "log.jsonl").write_text("\n".join(lines))
        (folder / "config.json").write_text(json.dumps({"settings": {"training_images": 200}}))
    fashion, cifar10 = curves.of_classifiers(tmp_path).axes
    assert not fashion.get_lines()
    normal, trained_on_clean, attacked = cifar10.get_lines()
    assert list(normal.get_xdata()) == [0.5, 1.5] and list(normal.get_ydata()) == [50, 50]
    assert list(attacked.get_ydata()) == [25, 25] and attacked.get_linestyle() == "--"
    assert attacked.get_color() == trained_on_clean.get_color() != normal.get_color()
    assert [text.get_text() for text in cifar10.get_legend().get_texts()] == ["ResNet, normal", "ResNet, adversarial FGSM"]


def test_quarters_of_a_training_curve_are_by_images():
    log = [{"images": n, "bits_per_dim": float(n)} for n in (10, 20, 40, 60, 80)]
    assert replace(density(), log=log).quarters == [15.0, 40.0, 60.0, 80.0]


def lab(data_set="cifar10", *, has_density=True):
    drawn = random_images(8, 3, 4, 4, seed=1)
    kept = {}

    def measurement(name, config, measure):
        key = json.dumps(config)
        if key not in kept:
            kept[key] = json.loads(json.dumps(measure()))
        return kept[key]

    def sample(count, *, generator, precision):
        sample.calls += 1
        assert generator.initial_seed() == trained.SEED
        return drawn[:count]

    sample.calls = 0
    return SimpleNamespace(data_set=data_set, has_density=has_density, precision="float32", density_fingerprint="x",
                           density=SimpleNamespace(sample=sample), measurement=measurement, drawn=drawn,
                           profile=SimpleNamespace(gallery=4),
                           test=SimpleNamespace(images=random_images(6, 3, 4, 4)))  # fmt: skip


def test_samples_are_drawn_once_and_kept():
    of = lab()
    assert torch.equal(trained.samples(of, 5), of.drawn[:5]) and torch.equal(trained.samples(of, 5), of.drawn[:5])
    assert of.density.sample.calls == 1


def test_the_gallery_has_true_images_above_samples_where_there_is_a_density():
    one, without = lab(), lab("fashion-mnist", has_density=False)
    rows = trained.rows_of_samples([without, one])
    assert list(rows) == ["CIFAR-10:\ntrue", "CIFAR-10:\nsampled", "CIFAR-10:\nsampled "]
    true, above, below = rows.values()
    assert torch.equal(true, one.test.images[:4])
    assert torch.equal(torch.cat([above, below]), one.drawn)


def test_one_image_of_each_class_is_the_first():
    images = random_images(4, 1, 4, 4)
    data = Images("toy", "test", images, torch.tensor([1, 0, 1, 0]), ("a", "b"), "toy")
    assert torch.equal(trained.one_of_each_class(data), images[[1, 0]])
    with pytest.raises(ValueError, match="no c among 4 images of toy"):
        trained.one_of_each_class(Images("toy", "test", images, data.labels, ("a", "b", "c"), "toy"))


def test_the_table_of_classifiers_has_all_of_the_paper_and_says_which_do_not_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(trained.paths, "WEIGHTS", tmp_path)
    monkeypatch.setattr(trained, "saved_classifiers", lambda: ["cifar10-vgg-normal"])
    folder = tmp_path / "classifiers" / "cifar10-vgg-normal"
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps({"test_accuracy": 0.8, "test_images": 1000}))
    (folder / "config.json").write_text(json.dumps({"settings": {"epochs": 3, "start": "y"}}))
    rows = cells(trained.classifier_table())
    assert len(rows) == 10 and sum(row[5] == "not trained" for row in rows) == 9
    assert rows[6] == ["CIFAR-10", "VGG", "normal", "13,615,866", "3 more", "**80.0** [77,&nbsp;83]", "1,000", "89"]
    assert rows[3][7] == "92/91", "the paper's two numbers where its columns differ"


def test_the_table_of_data_sets_counts_what_is_held_out():
    rows = cells(trained.data_table({"fashion-mnist": None, "cifar10": None}))
    assert rows[1][:6] == ["CIFAR-10", "32 x 32, colour", "3,072", "45,000", "5,000", "10,000"]
