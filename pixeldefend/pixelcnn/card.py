"""The model card of a trained density: what it is, how good it is, where it fails, and a picture of its samples.

`describe` measures what a card needs beyond the test score, keeps it in ``scores.json``, draws ``samples.png`` and writes
``README.md``; `card` makes the text from the folder's text files alone. A card is never edited by hand.
"""

import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hub import ModelCardData
from ..images import DATA_SETS, HELD_OUT, load_images
from ..weights import BEFORE, CALLS, CONFIG, EARLIER, LOG, SCORES, SECONDS_BEFORE, read_scores
from .model import PixelCNN
from .network import Network, PixelCNNConfig

CARD, SAMPLES = "README.md", "samples.png"
PROBE_IMAGES = 500  # of each data set; the first 500 test images are the same in all copies of CIFAR-10
COLUMNS = 16
ROWS = {1: 2, 3: 1}  # of true images, and of samples; colour hardly compresses, and the picture stays below 100 KB
SEED = 0  # of the samples
CURVE_LINES = 10


@dataclass(frozen=True)
class Source:
    """What a card says of a data set."""

    title: str
    hub: str  # its name on the Hugging Face hub
    licence: str


SOURCES = {
    "fashion-mnist": Source("Fashion-MNIST", "zalando-datasets/fashion_mnist", "MIT, copyright (c) 2017 Zalando SE"),
    "cifar10": Source("CIFAR-10", "uoft-cs/cifar10", "none is stated; its page asks to cite A. Krizhevsky, *Learning "
                      "multiple layers of features from tiny images*, 2009"),
}  # fmt: skip


def describe(folder: Path, *, device: torch.device | str = "cpu", progress: bool = False) -> None:
    """Measure the probes, draw the samples and write the card of the density in ``folder``, as training does at its end.

    The folder's ``scores.json`` gets the entry "probes". Raises as `PixelCNN.from_pretrained` and `load_images`.
    """
    density = PixelCNN.from_pretrained(folder).to(device)
    scores = read_scores(folder)
    data_set = scores["settings"]["data_set"]
    test = load_images(data_set, "test", limit=min(PROBE_IMAGES, scores["test_images"])).images
    draw_samples(density, test, folder / SAMPLES, progress=progress)
    groups = probe_images(test, data_set)
    scores["probes"] = {
        name: _measure(density.bits_per_dim(images, precision=scores["scored_in"], progress=progress), scores)
        for name, images in groups.items()
    }
    (folder / SCORES).write_text(json.dumps(scores, indent=2) + "\n")
    (folder / CARD).write_text(card(folder))


def probe_images(test: Tensor, data_set: str) -> dict[str, Tensor]:
    """Images that a density of ``data_set`` was not trained on, by what they are: uint8, each of the shape of ``test``'s.

    Constant images, the test images blurred, and those of the other data set: made grey and, where they are not as
    large, framed with black; where they are larger, only their middle.
    """
    channels, height, width = shape = tuple(test.shape[1:])
    found = {f"constant, {name}": torch.full((1, *shape), level, dtype=torch.uint8)
             for name, level in {"black (0)": 0, "grey (128)": 128, "white (255)": 255}.items()}  # fmt: skip
    blurred = F.avg_pool2d(test.float(), 5, stride=1, padding=2, count_include_pad=False)
    found["test images, blurred (mean of 5 x 5 pixels)"] = blurred.round().to(torch.uint8)
    for other in DATA_SETS.keys() - {data_set}:
        grey = load_images(other, "test", limit=PROBE_IMAGES).images.float().mean(1, keepdim=True).round().to(torch.uint8)
        down, right = height - grey.shape[2], width - grey.shape[3]
        fitted = F.pad(grey, (right // 2, right - right // 2, down // 2, down - down // 2))  # negative: cuts off
        found[f"{SOURCES[other].title} test images, in grey"] = fitted.expand(-1, channels, -1, -1)
    return found


def _measure(bits: Tensor, scores: dict) -> dict:
    """``bits`` per dimension (N,) in numbers; "likelier" is the share of images below the mean of the test images."""
    likelier = (bits < scores["test_bits_per_dim"]).double().mean().item()
    spread = {"bits_per_dim_std": round(bits.std().item(), 4)} if len(bits) > 1 else {}
    return {"images": len(bits), "bits_per_dim": round(bits.mean().item(), 4), **spread, "likelier": round(likelier, 4)}


def draw_samples(density: PixelCNN, test: Tensor, path: Path, *, progress: bool = False) -> None:
    """Write a PNG with the first images of ``test`` above as many samples (figures 8 and 9); always the same samples."""
    from matplotlib.image import imsave  # slow to import, and seldom needed

    true = test[: ROWS[density.shape[0]] * COLUMNS]
    samples = density.sample(len(true), generator=torch.Generator().manual_seed(SEED), progress=progress).cpu()
    picture = torch.cat([F.pad(_tile(true), (0, 0, 0, 0, 0, 4), value=255), _tile(samples)])
    imsave(path, picture.numpy(), metadata={"Software": None}, pil_kwargs={"optimize": True})


def _tile(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in rows of `COLUMNS` with white around each: uint8 (height, width, 3)."""
    framed = F.pad(images.expand(-1, 3, -1, -1), (1, 1, 1, 1), value=255)
    full = F.pad(framed, (0, 0, 0, 0, 0, 0, 0, -len(framed) % COLUMNS), value=255)
    count, channels, height, width = full.shape
    rows = full.view(count // COLUMNS, COLUMNS, channels, height, width).permute(0, 3, 1, 4, 2)
    return rows.reshape(-1, COLUMNS * width, channels)


def card(folder: Path) -> str:
    """The model card in Hugging Face's format (YAML, then Markdown), from config.json, scores.json and log.jsonl.

    Raises ``FileNotFoundError`` where one of these is missing, ``ValueError`` where one is no JSON, ``KeyError`` for one
    that lacks an entry.
    """
    config, scores = json.loads((folder / CONFIG).read_text()), read_scores(folder)
    log = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    settings = scores["settings"]
    source = SOURCES[settings["data_set"]]
    header = ModelCardData(
        license="mit",
        library_name="pixeldefend",
        pipeline_tag="unconditional-image-generation",
        tags=["pixelcnn", "density-estimation", "adversarial-robustness"],
        datasets=[source.hub],
    )
    sections = [
        f"---\n{header.to_yaml()}\n---",
        f"# PixelCNN++ for {source.title}",
        "The density p(X) that *PixelDefend* (Song et al., ICLR 2018) detects and purifies adversarial images with.\n"
        "Written by `pixeldefend.pixelcnn.card` from config.json, scores.json and log.jsonl.",
        _data(settings, source),
        _architecture(config, scores),
        _recipe(scores),
        _curve(log, scores),
        _score(scores),
        _samples(folder, config),
        _failures(scores),
        _use(folder, config, scores),
        f"## Licence\n\nMIT, as the code. Licence of the data: {source.licence}.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _data(settings: dict, source: Source) -> str:
    count, official = settings["training_images"], DATA_SETS[settings["data_set"]].sizes["train"]
    text = (
        f"## Data\n\nThe first {count:,} training images of {source.title}, without labels or "
        f"augmentation. The last {HELD_OUT:,}\nare held out for calibration; no test image was used."
    )
    if count + HELD_OUT == official:
        return text
    return text + (
        f" The copy that was at hand has {count + HELD_OUT:,} of the {official:,}\nofficial training images; with the "
        f"official files the commands below train on {official - HELD_OUT:,}, and end with other weights."
    )


def _architecture(config: dict, scores: dict) -> str:
    with torch.device("meta"):  # only to count
        network = Network(PixelCNNConfig(**{key: config[key] for key in PixelCNNConfig.__dataclass_fields__}))
    count = sum(p.numel() for p in network.parameters())
    return (
        "## Architecture\n\nA two-stream gated PixelCNN++ (Salimans et al. 2017), its logistic mixture read out as a "
        "256-way distribution per sub-pixel.\n"
        f"{count:,} parameters, stored as {scores['stored_as']}, fingerprint `{scores['fingerprint']}`.\n\n"
        + _table(("size", "value"), [(key, str(config[key])) for key in PixelCNN.SIZES])
    )


def _recipe(scores: dict) -> str:
    settings, seen = scores["settings"], scores["images_seen"] + scores.get(BEFORE, 0)
    seconds = scores["training_seconds"] + scores.get(SECONDS_BEFORE, 0)
    unsaid = ("data_set", "training_images", *(["initial_images"] if "start" in settings else []))  # nothing was initialised
    rows = [(key, str(value)) for key, value in settings.items() if key not in unsaid]
    passes = f"{seen / settings['training_images']:.2f} passes over the training images"
    with_muon = ", and Muon for the directions of the hidden layers" if settings.get("optimizer") == "muon" else ""
    return (
        f"## Recipe\n\nMaximum likelihood with Adam{with_muon}; the weights are the exponential moving average over the "
        "steps (`ema`).\n"
        f"**{seen:,} images seen**, {passes}, in {seconds:,.0f} seconds of training. The\npaper does not say how long the "
        f"authors trained.{_runs(scores)}{_calls(scores)}\n\n"
        + _table(("setting", "value"), rows)
    )


def _runs(scores: dict) -> str:
    """Of a run that began with the weights of another: what all of them saw and came to, or that this is not known."""
    if "start" not in scores["settings"]:
        return ""
    if EARLIER not in scores:
        return (f" Not counted are the images of the run whose weights (fingerprint `{scores['settings']['start']}`) this "
                "one began with.")  # fmt: skip
    runs = [*scores[EARLIER], scores]
    listed = "\n".join(
        f"{number}. {run['images_seen']:,} images in {run['training_seconds']:,.0f} seconds, to "
        f"{run['test_bits_per_dim']:.4f} bits per dimension on the test images (fingerprint `{run['fingerprint']}`)."
        for number, run in enumerate(runs, 1)
    )
    return (f"\n\nThese were {len(runs)} runs, each from the weights of the one before:\n\n{listed}\n\n"
            "The settings and the curve below are the last one's.")  # fmt: skip


def _calls(scores: dict) -> str:
    """What differed between the calls that resumed a run, where anything did."""
    calls = ["; ".join(f"{name}: {value}" for name, value in call.items()) for call in scores.get(CALLS, [])]
    if not calls:
        return ""
    return f"\n\nThe calls that the run consists of were not all alike ({', then '.join(calls)}); below is the last one's."


def _curve(log: list[dict], scores: dict) -> str:
    """The log in at most `CURVE_LINES` rows, each the mean over its share of the log's lines."""
    if not log:
        return "## Training curve\n\nThe run was too short to be logged."
    count = min(CURVE_LINES, len(log))
    rows = []
    for k in range(count):
        part = log[len(log) * k // count : len(log) * (k + 1) // count]
        bits = sum(line["bits_per_dim"] for line in part) / len(part)
        rows.append((f"{part[-1]['images']:,}", f"{bits:.3f}", f"{part[-1]['learning_rate']:.1e}"))
    head = ("images seen", "training bits per dimension since the row above", "learning rate")
    of = "Of the last run, and of" if EARLIER in scores else "Of"
    return f"## Training curve\n\n{of} the weights in training, not of their average.\n\n" + _table(head, rows)


def _score(scores: dict) -> str:
    mean, deviation, count = (scores[key] for key in ("test_bits_per_dim", "test_bits_per_dim_std", "test_images"))
    return (
        f"## Score\n\n**{mean:.4f} bits per dimension**, the mean of {count:,} test images: standard deviation between "
        f"images {deviation:.4f},\nstandard error of the mean {deviation / math.sqrt(count):.4f}. "
        f"Scored in {scores['scored_in']}."
    )


def _samples(folder: Path, config: dict) -> str:
    if not (folder / SAMPLES).is_file():
        return ""
    upper = "the upper half" if ROWS[config["channels"]] > 1 else "the upper row"
    text = f"In {upper} the first test images, below them samples (seed {SEED}, not selected)."
    return f"## Samples\n\n{text}\n\n![Test images above, samples below]({SAMPLES})"


def _failures(scores: dict) -> str:
    probes, mean = scores.get("probes", {}), scores["test_bits_per_dim"]
    rows = []
    for name, probe in probes.items():
        spread = f"{probe['bits_per_dim_std']:.4f}" if "bits_per_dim_std" in probe else ""
        rows.append((name, f"{probe['images']}", f"{probe['bits_per_dim']:.4f}", spread, f"{100 * probe['likelier']:.1f} %"))
    likelier = [name for name, probe in probes.items() if probe["bits_per_dim"] < mean]
    text = (
        "## Known failures\n\nA high likelihood does not prove that an image is like those of the training set: simple "
        "images can be *too likely*, and a\ntest that looks only for unlikely images lets them pass."
    )
    if not rows:
        return text
    found = "; ".join(likelier) if likelier else "none"
    head = ("not trained on", "images", "mean bits per dimension", "standard deviation", "likelier than the mean test image")
    return f"{text}\nOn average likelier than the test images ({mean:.4f}): {found}.\n\n" + _table(head, rows)


def _use(folder: Path, config: dict, scores: dict) -> str:
    return (
        "## Use and reproduce\n\n```python\nimport pixeldefend as pxd\n\n"
        f'density = pxd.PixelCNN.from_pretrained("{folder.name}")\n```\n\n'
        "```console\n" + "\n".join(training_commands(folder.name, config, scores)) + "\n```\n\n"
        + _by_how_many(scores)
        + "On other hardware, with another number of processes or with `--compile`, rounding differs (with dropout,\n"
        "processes draw other noise), and in the end so do the weights.\n"
        "`sha256sum -c SHA256SUMS` checks the files; loading does so as well."
    )


def _by_how_many(scores: dict) -> str:
    count = scores["settings"].get("processes", 1)
    if count == 1:
        return ""
    return f"The last one was run by {count} processes (`torchrun --nproc-per-node={count} -m pixeldefend ...`).\n"


def training_commands(name: str, config: dict, scores: dict) -> list[str]:
    """The command lines that train a density as the one called ``name`` was: one for each run, the last one's last."""
    runs = [*scores.get(EARLIER, []), scores]
    names = [f"my-{name}-{number}" for number in range(1, len(runs))] + [f"my-{name}"]
    starts = [None, *names]
    return [_training_command(name, config, run, weights=weights, start=start)
            for run, weights, start in zip(runs, names, starts[:-1], strict=True)]  # fmt: skip


def _training_command(name: str, config: dict, run: dict, *, weights: str, start: str | None) -> str:
    """That of one ``run``, from the weights in ``start``; without it from scratch, or from weights that have no folder."""
    settings = run["settings"]
    options = {
        "images": run["images_seen"],
        "filters": config["filters"],
        "blocks": config["blocks"],
        "dropout": settings.get("dropout", config["dropout"]),
        "batch-size": settings["batch_size"],
        "optimizer": settings.get("optimizer", "adam"),  # the only one there was
        "learning-rate": settings["learning_rate"],
        "cooldown": settings["cooldown_steps"] / settings["steps"],
        "seed": settings["seed"],
    }
    if "muon_rate" in settings:
        options["muon-rate"] = settings["muon_rate"]
    words = ["pixeldefend", "train", "pixelcnn", settings["data_set"]]
    words += ["--name", name] if name != settings["data_set"] else []
    words += [word for option, value in options.items() for word in (f"--{option}", str(value))]
    words += ["--bfloat16" if settings["bfloat16"] else "--no-bfloat16"]
    words += ["--compile"] if settings.get("compiled") else []
    words += ["--start-from", start or f"FOLDER-OF-{settings['start']}"] if "start" in settings else []
    return shlex.join([*words, "--folder", f"runs/{weights}", "--weights", weights])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
