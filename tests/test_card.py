"""The model card: made from text files, its numbers by hand, its probes and its picture."""

import json
import shlex

import pytest
import torch
from huggingface_hub import ModelCard
from matplotlib.image import imread
from nets import small_density

from pixeldefend import PixelCNN, load_images, paths
from pixeldefend.cli import make_parser
from pixeldefend.pixelcnn import card as cards
from pixeldefend.pixelcnn.card import CARD, SAMPLES, card, describe, draw_samples, probe_images, training_commands
from pixeldefend.weights import CONFIG, LOG, SCORES

SETTINGS = {"data_set": "fashion-mnist", "training_images": 2000, "batch_size": 4, "steps": 250, "cooldown_steps": 77,
            "learning_rate": 0.002, "ema": 0.99, "bfloat16": True, "seed": 3}  # fmt: skip
SCORED = {"test_images": 400, "test_bits_per_dim": 5.5, "test_bits_per_dim_std": 0.8, "scored_in": "float32",
          "stored_as": "float32", "images_seen": 1000, "training_seconds": 12.3,
          "fingerprint": "0123456789abcdef"}  # fmt: skip
PROBES = {
    "too likely": {"images": 1, "bits_per_dim": 0.25, "likelier": 1.0},
    "unlikely": {"images": 5, "bits_per_dim": 7.125, "bits_per_dim_std": 0.5, "likelier": 0.2},
}


def log_lines(count: int) -> list[dict]:
    return [{"step": 10 * n, "images": 40 * n, "seconds": n, "bits_per_dim": 8 - n / 10, "learning_rate": 1e-3 / n}
            for n in range(1, count + 1)]  # fmt: skip


def write(folder, *, density: PixelCNN | None = None, log: int = 25, settings: dict | None = None, **scores):
    """The text files that training leaves, and a toy density's weights."""
    (density or small_density(1)).save_pretrained(folder)
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in log_lines(log)))
    (folder / SCORES).write_text(json.dumps({**SCORED, **scores, "settings": {**SETTINGS, **(settings or {})}}))
    return folder


def rows_below(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"][2:]


# -- the text ---------------------------------------------------------------------------------------------------------


def test_the_header_is_hugging_face_s(tmp_path):
    (tmp_path / "card.md").write_text(card(write(tmp_path)))
    header = ModelCard.load(tmp_path / "card.md", ignore_metadata_errors=False).data
    found = header.to_dict()
    assert (found["license"], found["library_name"]) == ("mit", "pixeldefend")
    assert header.datasets == ["zalando-datasets/fashion_mnist"] and "pixelcnn" in header.tags


def test_numbers_are_those_of_the_files(tmp_path):
    text = card(write(tmp_path, probes=PROBES))
    count = sum(p.numel() for p in small_density(1).parameters())
    for said in (
        "The first 2,000 training images of Fashion-MNIST",
        f"{count:,} parameters, stored as float32, fingerprint `0123456789abcdef`",
        "**1,000 images seen**, 0.50 passes",
        "**5.5000 bits per dimension**, the mean of 400 test images",
        "standard deviation between images 0.8000,\nstandard error of the mean 0.0400",
        "Licence of the data: MIT, copyright (c) 2017 Zalando SE",
    ):
        assert said in text
    assert ["filters", "6"] in rows_below(text, "Architecture")
    recipe = dict(rows_below(text, "Recipe"))
    assert recipe == {key: str(value) for key, value in SETTINGS.items() if key not in ("data_set", "training_images")}


def test_the_card_of_the_other_data_set(tmp_path):
    text = card(write(tmp_path, settings={"data_set": "cifar10"}))
    assert "PixelCNN++ for CIFAR-10" in text and "uoft-cs/cifar10" in text and "none is stated" in text
    assert "Fashion" not in text


def test_the_curve_is_the_log_in_ten_means(tmp_path):
    rows = rows_below(card(write(tmp_path, log=25)), "Training curve")
    assert len(rows) == 10
    assert rows[0] == ["80", "7.850", "5.0e-04"]  # the mean of 7.9 and 7.8
    assert rows[-1] == ["1,000", "5.600", "4.0e-05"]  # the mean of 5.7, 5.6 and 5.5
    assert [row[0] for row in rows] == [f"{40 * n:,}" for n in (2, 5, 7, 10, 12, 15, 17, 20, 22, 25)]


def test_a_short_log_is_a_short_curve(tmp_path):
    assert rows_below(card(write(tmp_path, log=2)), "Training curve") == [["40", "7.900", "1.0e-03"],
                                                                          ["80", "7.800", "5.0e-04"]]  # fmt: skip
    assert "too short to be logged" in card(write(tmp_path, log=0))


@pytest.mark.parametrize(
    ("bits", "said"),
    [(5.5, "likelier than the test images (5.5000): too likely."), (8.0, "too likely; unlikely."), (0.1, ": none.")],
)
def test_failures_name_the_probes_that_are_too_likely(bits, said, tmp_path):
    text = card(write(tmp_path, test_bits_per_dim=bits, probes=PROBES))
    assert said in text
    assert rows_below(text, "Known failures") == [["too likely", "1", "0.2500", "", "100.0 %"],
                                                  ["unlikely", "5", "7.1250", "0.5000", "20.0 %"]]  # fmt: skip


def test_without_probes_nothing_is_said_of_them(tmp_path):
    text = card(write(tmp_path))
    assert "## Known failures" in text and "On average likelier" not in text


@pytest.mark.parametrize("name", ["fashion-mnist", "another one"])
@pytest.mark.parametrize("settings", [{}, {"bfloat16": False, "compiled": True}, {"cooldown_steps": 0}],
                         ids=["usual", "other precision, compiled", "no cool-down"])  # fmt: skip
def test_the_command_line_asks_for_what_was_trained(name, settings, tmp_path):
    folder = write(tmp_path / name, settings=settings)
    (command,) = training_commands(name, *(json.loads((folder / file).read_text()) for file in (CONFIG, SCORES)))
    assert f"\n{command}\n" in card(folder)
    program, *words = shlex.split(command)
    options, settings = make_parser().parse_args(words), {**SETTINGS, **settings}
    assert program == "pixeldefend" and options.data_set == "fashion-mnist"
    assert (options.name or "fashion-mnist") == name
    assert options.images == 1000 and options.batch_size == 4 and options.images // options.batch_size == 250
    assert round(options.cooldown * 250) == settings["cooldown_steps"]
    assert (options.filters, options.blocks, options.dropout) == (6, 1, 0.0)
    assert (options.learning_rate, options.seed) == (0.002, 3)
    assert (options.bfloat16, options.compiled) == (settings["bfloat16"], settings.get("compiled", False))


def test_earlier_runs_are_commands_too_each_from_the_weights_of_the_one_before(tmp_path):
    earlier = {"images_seen": 800, "training_seconds": 9.0, "test_bits_per_dim": 6.5, "fingerprint": "abc",
               "settings": {**SETTINGS, "seed": 4}}  # fmt: skip
    folder = write(tmp_path / "net", settings={"start": "abc"}, earlier_runs=[earlier],
                   images_seen_before=800, training_seconds_before=9.0)  # fmt: skip
    commands = training_commands("net", *(json.loads((folder / file).read_text()) for file in (CONFIG, SCORES)))
    first, second = (make_parser().parse_args(shlex.split(command)[1:]) for command in commands)
    assert (first.images, first.seed, first.start) == (800, 4, None)
    assert (second.images, second.seed, second.start) == (1000, 3, str(first.weights))
    assert first.folder != second.folder and first.weights != second.weights
    text = card(folder)
    assert all(command in text for command in commands) and "Of the last run, and of the weights in training" in text
    assert "**1,800 images seen**, 0.90 passes over the training images, in 21 seconds" in text
    assert "These were 2 runs" in text and "\n1. 800 images in 9 seconds, to 6.5000 bits per dimension" in text
    assert "\n2. 1,000 images in 12 seconds, to 5.5000 bits per dimension" in text
    assert "initial_images" in card(write(tmp_path / "whole", settings={"initial_images": 100}))
    folder = write(tmp_path / "other", settings={"start": "abc", "initial_images": 100})
    assert "--start-from FOLDER-OF-abc" in card(folder) and "initial_images" not in card(folder)
    assert "Not counted are the images of the run whose weights (fingerprint `abc`)" in card(folder)


def test_the_number_of_processes_is_told(tmp_path):
    assert "torchrun" not in card(write(tmp_path / "one"))
    assert "by 2 processes (`torchrun --nproc-per-node=2" in card(write(tmp_path / "two", settings={"processes": 2}))


def test_a_copy_of_the_data_set_that_lacks_images_is_named(tmp_path):
    text = card(write(tmp_path / "copy", settings={"data_set": "cifar10", "training_images": 44_923}))
    assert "has 49,923 of the 50,000\nofficial training images" in text and "train on 45,000" in text
    assert "official" not in card(write(tmp_path / "whole", settings={"training_images": 55_000}))


@pytest.mark.parametrize("name", [CONFIG, SCORES, LOG])
def test_a_missing_file_is_named(name, tmp_path):
    (write(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        card(tmp_path)


# -- what is measured -------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    """Three images where a card rests on 500, two columns where its picture has sixteen."""
    monkeypatch.setattr(cards, "PROBE_IMAGES", 3)
    monkeypatch.setattr(cards, "COLUMNS", 2)


def test_describing_adds_probes_picture_and_card(few, tmp_path):
    density = small_density(1, 28, 28)
    folder = write(tmp_path / "toy", density=density)
    before = json.loads((folder / SCORES).read_text())
    describe(folder)
    scores = json.loads((folder / SCORES).read_text())
    probes = scores.pop("probes")
    assert scores == before
    assert list(probes) == list(probe_images(load_images("fashion-mnist", "test", limit=3).images, "fashion-mnist"))
    black = density.bits_per_dim(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).item()
    assert probes["constant, black (0)"] == {"images": 1, "bits_per_dim": pytest.approx(black, abs=1e-4),
                                             "likelier": float(black < 5.5)}  # fmt: skip
    cifar = load_images("cifar10", "test", limit=3).images[:, :, 2:-2, 2:-2].float().mean(1, keepdim=True).round()
    bits = density.bits_per_dim(cifar.to(torch.uint8))
    found = probes["CIFAR-10 test images, in grey"]
    assert found["images"] == 3
    assert found["bits_per_dim"] == pytest.approx(bits.mean().item(), abs=1e-4)
    assert found["bits_per_dim_std"] == pytest.approx(bits.std().item(), abs=1e-4)
    assert found["likelier"] == pytest.approx((bits < 5.5).float().mean().item(), abs=1e-4)
    text = (folder / CARD).read_text()
    assert f"({SAMPLES})" in text and (folder / SAMPLES).is_file()
    next(folder.glob("*.safetensors")).unlink()
    assert text == card(folder), "the text files are all that a card is made of"


def test_probes_of_a_colour_density(few):
    test = load_images("cifar10", "test", limit=2).images
    probes = probe_images(test, "cifar10")
    assert all(images.dtype == torch.uint8 and images.shape[1:] == (3, 32, 32) for images in probes.values())
    assert [len(images) for images in probes.values()] == [1, 1, 1, 2, 3]
    black, grey, white, blurred, other = probes.values()
    assert [images.unique().tolist() for images in (black, grey, white)] == [[0], [128], [255]]
    mean = test[1, 2, 8:13, 18:23].double().mean().item()
    assert blurred[1, 2, 10, 20].item() == pytest.approx(mean, abs=0.51)
    clothes = load_images("fashion-mnist", "test", limit=3).images
    assert torch.equal(other[:, :, 2:-2, 2:-2], clothes.expand(-1, 3, -1, -1))
    assert other.long().sum() == 3 * clothes.long().sum(), "framed with black"


def test_the_picture_shows_test_images_above_samples(few, tmp_path):
    density, test = small_density(3), torch.full((5, 3, 8, 8), 7, dtype=torch.uint8)
    for name in ("one.png", "again.png"):
        draw_samples(density, test, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    pixels = torch.from_numpy(imread(tmp_path / "one.png")[..., :3] * 255).round().to(torch.uint8).permute(2, 0, 1)
    samples = density.sample(2, generator=torch.Generator().manual_seed(cards.SEED))
    assert pixels.shape == (3, 10 + 4 + 10, 20)
    for column in range(2):
        across = slice(10 * column + 1, 10 * column + 9)
        assert torch.equal(pixels[:, 1:9, across], test[column])
        assert torch.equal(pixels[:, 15:23, across], samples[column])
    assert pixels[:, 9:15].unique().tolist() == [255]


def test_a_row_that_is_not_full_is_filled_with_white(few, tmp_path):
    draw_samples(small_density(1), torch.zeros(3, 1, 8, 8, dtype=torch.uint8), tmp_path / "a.png")
    pixels = imread(tmp_path / "a.png")[..., 0]
    assert pixels.shape == (44, 20)
    assert (pixels[11:19, 1:9] == 0).all() and (pixels[10:20, 10:] == 1).all()


# -- those shipped ----------------------------------------------------------------------------------------------------

SHIPPED = sorted((paths.WEIGHTS / "pixelcnn").iterdir())


@pytest.mark.parametrize("folder", SHIPPED, ids=[folder.name for folder in SHIPPED])
def test_shipped_cards_are_those_that_the_code_writes(folder):
    assert (folder / CARD).read_text() == card(folder)
    assert json.loads((folder / SCORES).read_text())["probes"]
    assert (folder / SAMPLES).stat().st_size < 100_000
