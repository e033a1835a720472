"""`pixeldefend bench`: what it measures, writes and prints."""

import json

import pytest
import torch
from nets import random_images, small_density

from pixeldefend import PixelDefend
from pixeldefend.cli import main
from pixeldefend.pixelcnn import shipped_densities
from pixeldefend.study import speed
from pixeldefend.study.conditions import DENSITIES
from pixeldefend.study.records import read_signed


@pytest.fixture(scope="module")
def content():
    density = small_density(1, 8, 8)
    return speed.measure(density, random_images(6, 1, 8, 8), name="small", eps_defend=16, batches=(1, 6), naive_images=2,
                         repeats=1, report=lambda line: None)  # fmt: skip


def test_every_task_is_measured_in_both_precisions(content):
    for task, count in (("forward", 2 * 3 * 2), ("score", 2), ("purify", 4), ("sample", 2)):
        assert len(content[task]) == count
        assert {entry["precision"] for entry in content[task]} == {"float32", "bfloat16"}
        for entry in content[task]:
            rounding = 1e-4 / entry["seconds"]
            assert entry["images_per_second"] == pytest.approx(entry["images"] / entry["seconds"], rel=0.01 + rounding)
    assert [entry["images"] for entry in content["purify"]] == [1, 6, 1, 6]
    usual, *others = content["training"]
    for entry in others:  # one thing is otherwise in each
        kinds = ("precision", "layout", "optimizer", "compiled", "batch")
        assert sum(entry[key] != usual[key] for key in kinds) == 1 and entry["images_per_second"] > 0
    assert len(others) == 5


def test_costs_are_in_units_of_the_best_parallel_form(content):
    for precision in ("float32", "bfloat16"):
        best = speed.best_forward(content, precision)
        assert all(f["images_per_second"] <= best["images_per_second"] for f in content["forward"]
                   if f["precision"] == precision)  # fmt: skip
        for entry in content["purify"]:
            if entry["precision"] == precision:
                cost = best["images_per_second"] / entry["images_per_second"]
                assert entry["forward_passes"] == pytest.approx(cost, rel=0.01)


def test_the_naive_algorithm_gives_the_same_images():
    density, images = small_density(3, 4, 8), random_images(2, 3, 4, 8)
    assert torch.equal(speed.purify_naively(density, images, 16), PixelDefend(density, eps_defend=16)(images))


def test_operations_are_counted(content):
    """Against the count by hand of the first layer: a 2 x 3 kernel on two channels at every position, and so on."""
    density = small_density(1, 8, 8)
    expected = 0

    def count(layer, inputs, output):
        nonlocal expected
        positions = inputs[0].shape[-2:].numel() if layer.out_dim == 1 else output.shape[-2:].numel()
        expected += 2 * layer.v.numel() * positions

    for layer in density.network.normalised_layers():
        layer.register_forward_hook(count)
    assert speed.flops(density.network, random_images(1, 1, 8, 8)) == expected == content["flops_per_image"]


def test_the_memory_that_is_stated_is_what_the_pass_allocates(content):
    single, half = content["memory_per_image"]["float32"], content["memory_per_image"]["bfloat16"]
    assert single == 2 * half
    windows = 2 * (8 + 1) * 2  # one gated block's two inputs, two rows of eight columns and their border, 2F features
    assert single > 4 * windows * 2 * small_density(1, 8, 8).network.config.filters


def test_shares_of_the_profile_add_up(content):
    for shares in content["profile"].values():
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["matrix products"] > 0 and shares["element-wise"] > 0


def test_nothing_that_names_the_machine_is_recorded(content):
    assert set(content["machine"]) == {"device", "threads", "torch", "name", "instructions"}


def test_too_few_images():
    with pytest.raises(ValueError, match="8 images are needed"):
        speed.measure(small_density(1, 8, 8), random_images(2, 1, 8, 8), name="x", eps_defend=1, batches=(8,))


def test_the_command_writes_a_record_that_no_hand_can_change(tmp_path, capsys):
    small_density(1, 28, 28).save_pretrained(tmp_path / "density")
    path = tmp_path / "speed.json"
    arguments = ["--batches", "1", "2", "--naive", "0", "--repeats", "1", "--output", str(path), "--quiet"]
    assert main(["bench", "fashion-mnist", "--density", str(tmp_path / "density"), *arguments]) == 0
    out = capsys.readouterr().out
    assert "one forward pass, bfloat16" in out and "purify" in out
    assert read_signed(path)["naive"] is None
    changed = json.loads(path.read_text())
    changed["purify"][0]["images_per_second"] *= 2
    path.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="was changed"):
        read_signed(path)


@pytest.mark.skipif("cifar10-small" not in shipped_densities(), reason="the weights are not in data/weights")
def test_the_best_shipped_density_of_a_data_set_is_measured(monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(speed, "measure", lambda density, images, **options: given.update(options) or {})
    monkeypatch.setattr(speed, "speed_table", lambda found: "")
    assert main(["bench", "cifar10", "--batches", "1", "--output", str(tmp_path / "speed.json"), "--quiet"]) == 0
    assert given["name"] in DENSITIES["cifar10"] and given["name"] in shipped_densities()


@pytest.mark.parametrize("options", [["--batches", "0"], ["--repeats", "0"], ["--naive", "-1"], ["--batches", "99999"]])
def test_bad_options(options, tmp_path, capsys):
    assert main(["bench", "fashion-mnist", *options, "--output", str(tmp_path / "x.json")]) == 1
    assert "error:" in capsys.readouterr().err
