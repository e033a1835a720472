"""README.md tells the truth: its code runs, its commands exist, its files are there, nothing is left to fill in."""

import json
import re
import shlex

import pytest
import torch
from PIL import Image

from pixeldefend import PixelCNN, backmatter, paths
from pixeldefend.classifiers import load_classifier, saved_classifiers
from pixeldefend.cli import make_parser
from pixeldefend.commands import COMMANDS
from pixeldefend.fingerprint import fingerprint
from pixeldefend.pixelcnn import shipped_densities

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")
MADE_LATER = ("_build/", "runs/", ".venv")  # what the commands on the page create
SUFFIXES = (".py", ".md", ".toml", ".txt", ".yml", ".cff", ".png")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("console") for line in block.splitlines()]


def named_files() -> set[str]:
    """Where links and images lead inside the repository, and what is set as code and looks like a path."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    links = [target for target in re.findall(r"\]\(([^)#\s]+)", prose) if "://" not in target]
    code = [text for text in re.findall(r"`([^`\n]+)`", prose) if re.fullmatch(r"[\w./-]+", text)]
    arguments = [word for command in commands() for word in shlex.split(command) if word.startswith("notebooks/")]
    paths_in_code = [text for text in code if "/" in text or text.endswith(SUFFIXES)]
    return {path for path in links + paths_in_code + arguments if not path.startswith(MADE_LATER)}


@pytest.mark.skipif(
    "fashion-mnist" not in shipped_densities() or "fashion-mnist-resnet-normal" not in saved_classifiers(),
    reason="the weights are not in data/weights",
)
def test_the_example_runs_and_prints_what_it_promises(capsys):
    (code,) = blocks("python")
    shorter, replaced = re.subn(r"limit=\d+", "limit=4", code)
    assert replaced == 1
    space = {}
    exec(compile(shorter, "README.md", "exec"), space)
    printed = capsys.readouterr().out
    pattern = r"^(\w+): accuracy \d+%, \d\.\d\d bits per dimension$"
    assert re.findall(pattern, printed, flags=re.MULTILINE) == ["clean", "attacked", "purified"]
    clean, attacked, purified = space["data"].images, space["attacked"], space["purified"]
    assert len(clean) == 4 and not torch.equal(clean, attacked) and not torch.equal(attacked, purified)
    assert (purified.int() - attacked.int()).abs().max() <= 32


@pytest.mark.parametrize("path", sorted(named_files()))
def test_a_named_file_exists(path):
    assert (paths.ROOT / path).exists()


def test_the_files_are_found_on_the_page():
    assert {"data/README.md", "book/_static/teaser.png", "data/weights/", "notebooks/04_detection.py"} <= named_files()


def test_the_picture_was_made_with_the_shipped_weights():
    """If not: ``tools/draw_teaser.py``. Its description in the book says how many classes are right."""
    with Image.open(paths.ROOT / "book" / "_static" / "teaser.png") as picture:
        made_with = picture.info["Comment"]
    models = PixelCNN.from_pretrained("fashion-mnist"), load_classifier("fashion-mnist", "resnet")
    assert made_with == " ".join(map(fingerprint, models))


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("pixeldefend ")])
def test_a_command_of_the_console_is_understood(command, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    options = make_parser().parse_args(shlex.split(command)[1:])
    assert options.run in [known.run for known in COMMANDS.values()]


def test_every_command_of_the_console_is_shown():
    assert not [name for name in COMMANDS if f"\npixeldefend {name} " not in README]


def test_make_has_the_targets_that_are_named():
    makefile = (paths.ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make (\w+)", README))
    assert {"book", "test"} <= targets
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)]


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"\{\{.*?\}\}|TODO|XXX", README)


def test_it_says_what_no_check_covers_as_the_book_does():
    assert backmatter.NOT_CHECKED in " ".join(README.split())


def test_it_says_that_the_defence_is_broken():
    assert "BPDA" in README and "9 %" in README


def test_the_shipped_models_numbers_are_those_of_their_scores():
    density, small = (json.loads((paths.WEIGHTS / f"pixelcnn/{name}/scores.json").read_text())
                      for name in ("fashion-mnist", "cifar10-small"))  # fmt: skip
    classifier = json.loads((paths.WEIGHTS / "classifiers/fashion-mnist-resnet-normal/scores.json").read_text())
    assert f"({density['test_bits_per_dim']:.2f} bits per dimension on the test images)" in README
    assert f" {small['test_bits_per_dim']:.2f} bits per dimension where" in " ".join(README.split())
    assert f"({100 * classifier['test_accuracy']:.1f} % test accuracy)" in " ".join(README.split())
