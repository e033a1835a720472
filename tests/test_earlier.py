"""What a better density is worth: records kept of earlier weights, and the chapter's figure and tables of them."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend.fingerprint import fingerprint
from pixeldefend.images import Images
from pixeldefend.study import Lab, Record, lab, load_record, save_record
from pixeldefend.study.conditions import EPS_ATTACK, Profile
from pixeldefend.study.records import read_signed, write_signed
from pixeldefend.study.shipped import earlier
from pixeldefend.study.shipped.earlier import State

FM = "fashion-mnist"


def record(right: int, *, of: int = 10, **config) -> Record:
    return Record({"classifier": "aa", **config}, list(range(of)), [0] * of, [0] * right + [1] * (of - right), [3.0] * of)


def state(bits: float, *right: int, of: int = 10) -> State:
    return State(bits, 1000, {eps: record(count, of=of) for eps, count in zip((0, 8, 25), right, strict=True)})


class Purifying(Lab):
    """A lab whose records are given."""

    def __init__(self, density: str, right: int, of: int = 8):
        self.data_set, self.density_name = FM, density
        self.record = lambda condition: record(right, of=of, density="new", images=of, data="x")


@pytest.fixture
def here(tmp_path, monkeypatch) -> SimpleNamespace:
    """A shipped density of 2.7 bits, and two earlier ones, of 2.9 and 2.8 bits, in ``folder``."""
    monkeypatch.setattr(earlier.paths, "WEIGHTS", tmp_path / "weights")
    current = tmp_path / "weights" / "pixelcnn" / "new"
    current.mkdir(parents=True)
    (current / "scores.json").write_text(json.dumps({"test_bits_per_dim": 2.7, "images_seen": 5, "images_seen_before": 2}))
    made = SimpleNamespace(folder=tmp_path / "earlier", lab=Purifying("new", 6))
    for bits, right in ((2.8, 5), (2.9, 3)):
        put(made, bits, right)
    return made


def put(here, bits: float, right: int, **config) -> None:
    own = here.folder / f"{FM}-{bits}"
    for eps in (0, 8, 25):
        condition = here.lab.pixeldefend("bim" if eps else "clean", eps)
        save_record(record(right, density=f"{bits}", images=10, data="y", **config), own / f"{condition.name}.json")
    write_signed({"results": {"test_bits_per_dim": bits, "images_seen": 3}}, own / f"{FM}-density.json")


def test_states_go_from_the_worst_to_the_labs_own_on_the_same_images(here):
    found = earlier.states(here.lab, here.folder)
    assert [(of.bits, of.images_seen) for of in found] == [(2.9, 3), (2.8, 3), (2.7, 7)]
    assert {len(of.records[eps]) for of in found for eps in (0, 8, 25)} == {8}, "as many as the lab's own have"
    assert [int(of.records[8].correct.sum()) for of in found] == [3, 5, 6]


def test_what_was_kept_with_another_classifier_or_is_no_worse_is_left_out(here):
    put(here, 2.8, 5, classifier="bb")
    put(here, 2.7, 5)
    put(here, 2.6, 5)
    assert [of.bits for of in earlier.states(here.lab, here.folder)] == [2.9, 2.7]


@pytest.mark.parametrize("data_set", EPS_ATTACK)
def test_what_ships_shows_a_density_getting_better(data_set):
    found = earlier.states(Lab(data_set, "laptop", recompute=False))
    assert len(found) > 1 and [of.bits for of in found] == sorted((of.bits for of in found), reverse=True)
    assert len(found[0].records[0]) >= 300


def test_the_change_is_counted_image_by_image():
    found = [state(bits, 10, right, 2, of=100) for bits, right in ((3, 2), (2.9, 90), (2.8, 12))]
    mean, low, high = earlier.change(found, 8)
    assert mean == pytest.approx(10) and 3 < low < 5 and 15 < high < 17
    assert earlier.change([state(3, 5, 2, 2), state(2.8, 5, 2, 2)], 0) == (0, 0, 0)


def test_a_line_through_the_states_goes_straight_on():
    found = [state(3, 5, 3, 3), state(2.8, 5, 5, 3), state(2.6, 5, 7, 3)]
    assert earlier.straight_on(found, 8, 2.5) == pytest.approx(80)
    assert earlier.straight_on(found, 25, 2.5) == pytest.approx(30)
    assert math.isnan(earlier.straight_on(found[:1], 8, 2.5))


def test_the_table_ends_with_the_change_and_the_papers_numbers():
    table = earlier.table(FM, [state(3, 5, 4, 3), state(2.8, 6, 6, 3)])
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert {len(line) for line in lines} == {5}
    assert [line[0] for line in lines[2:]] == ["3.000", "2.800", "*change in points*", "*2.7, the paper*"]
    assert lines[4][3].startswith("+20.0<br>[\N{MINUS SIGN}") and lines[5][2:] == ["88", "83", "76"]
    assert "change" not in earlier.table(FM, [state(3, 5, 4, 3)])


def test_the_figure_has_a_line_for_each_eps_and_the_papers_point():
    figure = earlier.figure({FM: [state(3, 5, 4, 3), state(2.8, 6, 6, 3)]})
    lines = figure.axes[0].get_lines()
    assert [list(line.get_ydata()) for line in lines] == [[50, 60], [88], [40, 60], [83], [30, 30], [76]]
    assert list(lines[0].get_xdata()) == [3, 2.8] and figure.axes[0].xaxis_inverted()


class Brightness(nn.Module):
    def forward(self, pixels):
        return pixels.mean((1, 2, 3))[:, None] * torch.linspace(1, -1, 10)


def test_what_is_kept_of_weights_are_their_scores_and_the_records(tmp_path, monkeypatch):
    images = random_images(3, 1, 8, 8)
    data = Images(FM, "test", images, torch.zeros(3, dtype=torch.int64), tuple("abcdefghij"), "toy")
    monkeypatch.setitem(lab.PROFILES, "laptop", Profile(images=3, dear_images=2, gallery=1))
    monkeypatch.setattr(lab, "load_images", lambda *names, **options: data)
    monkeypatch.setattr(lab, "load_classifier", lambda *names, **options: Brightness().eval())
    density = small_density(1)
    monkeypatch.setattr(lab.PixelCNN, "from_pretrained", lambda name: density)
    (tmp_path / "scores.json").write_text(json.dumps({"test_bits_per_dim": 2.9, "images_seen": 40, "images_seen_before": 2}))
    own = earlier.keep(tmp_path, FM, folder=tmp_path / "earlier")
    kept = read_signed(own / f"{FM}-density.json")
    assert kept["results"] == {"test_bits_per_dim": 2.9, "images_seen": 42}
    assert own.name == f"{FM}-{kept['config']['density'][:8]}" and kept["config"]["density"] == fingerprint(density)
    names = {path.stem: load_record(path) for path in own.glob("*pixeldefend32.json")}
    assert set(names) == {f"{FM}-resnet-normal-{what}-pixeldefend32" for what in ("clean", "bim-eps8", "bim-eps25")}
    assert {len(of) for of in names.values()} == {3}
