"""The book's pages on trained weights: each density's model card as a page, and one page that lists everything shipped."""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ...classifiers.store import classifier_name
from ...pixelcnn.card import CARD, SAMPLES, SOURCES
from ...weights import BEFORE, CONFIG, SCORES
from ..provenance import Weights
from ..tables import wilson_interval

PAGE, FOLDER = "models.md", "models"  # in the book's folder
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)
OWN_COLUMN = ("training", "epochs", "training_images", "steps", "start")


def write_model_pages(book: Path, weights: Path, known: Iterable[Weights] = ()) -> None:
    """Write ``models.md`` and, for each density with a card, ``models/<name>.md`` with its picture; old pages go.

    Args:
        book: the folder of the book's pages.
        weights: the folder with ``pixelcnn`` and ``classifiers``.
        known: fingerprints of what lies there.
    """
    shutil.rmtree(book / FOLDER, ignore_errors=True)
    cards = sorted(path.parent for path in (weights / "pixelcnn").glob(f"*/{CARD}"))
    for folder in cards:
        _write_card(folder, book / FOLDER)
    configs = sorted((weights / "classifiers").glob(f"*/{CONFIG}"))
    fingerprints = {(found.kind, found.name): found.fingerprint for found in known}
    text = ["# Trained models", "",
            "What was trained for this book and comes with it, in `data/weights`. A record names the weights it was made",
            "with by their fingerprint, a hash of all their values ({doc}`execution`).", "",
            "## Densities", "", *_densities(cards, fingerprints), "",
            "## Classifiers", "", *_classifiers(configs, fingerprints)]  # fmt: skip
    (book / PAGE).write_text("\n".join(text) + "\n", encoding="utf-8")


def _write_card(folder: Path, pages: Path) -> None:
    pages.mkdir(parents=True, exist_ok=True)
    text = FRONT_MATTER.sub("", (folder / CARD).read_text(encoding="utf-8"))
    if (folder / SAMPLES).is_file():
        shutil.copyfile(folder / SAMPLES, pages / f"{folder.name}.png")
    text = text.replace(f"]({SAMPLES})", f"]({folder.name}.png)")
    (pages / f"{folder.name}.md").write_text(text, encoding="utf-8")


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _densities(cards: list[Path], fingerprints: dict[tuple[str, str], str]) -> list[str]:
    if not cards:
        return ["None yet."]
    rows = []
    for folder in cards:
        scores = _read(folder / SCORES)
        fingerprint = fingerprints.get(("density", folder.name), scores["fingerprint"])
        title = SOURCES[scores["settings"]["data_set"]].title
        rows.append((f"{{doc}}`{folder.name} <{FOLDER}/{folder.name}>`", title, f"{scores['test_bits_per_dim']:.3f}",
                     f"{scores['test_images']:,}", f"{scores['images_seen'] + scores.get(BEFORE, 0):,}",
                     f"`{fingerprint}`"))  # fmt: skip
    head = ("model card", "data set", "bits per dimension, test", "test images", "training images seen", "fingerprint")
    return _table("The densities: PixelCNNs.", "tbl-densities", head, rows)


def _classifiers(configs: list[Path], fingerprints: dict[tuple[str, str], str]) -> list[str]:
    if not configs:
        return ["None yet."]
    names = {value: name for (_, name), value in fingerprints.items()}
    rows = []
    for path in configs:
        config, scores = _read(path), _read(path.with_name(SCORES))
        settings = config["settings"]
        name = classifier_name(config["data_set"], config["network"], config["training"])
        low, high = wilson_interval(round(scores["test_accuracy"] * scores["test_images"]), scores["test_images"])
        seen = scores.get("images_seen", 0) + scores.get(BEFORE, 0)
        recipe = [f"{key}&nbsp;{_plain(value)}" for key, value in settings.items() if key not in OWN_COLUMN]
        start = settings.get("start")
        recipe += [f"started from {names.get(start, f'weights `{start}`')}"] if start else []
        rows.append((SOURCES[config["data_set"]].title, config["network"], config["training"],
                     f"**{100 * scores['test_accuracy']:.1f}**<br>[{100 * low:.1f},&nbsp;{100 * high:.1f}]",
                     f"{scores['test_images']:,}", str(settings.get("epochs", "")), f"{seen:,}",
                     ", ".join(recipe), f"`{fingerprints.get(('classifier', name), '')}`"))  # fmt: skip
    head = ("data set", "network", "training", "test accuracy in %, 95&nbsp;% interval", "test images", "epochs",
            "training images seen", "recipe", "fingerprint")  # fmt: skip
    return _table("The classifiers, each with the recipe it was trained with.", "tbl-classifiers", head, rows)


def _plain(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(caption: str, name: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f":::{{table}} {caption}", f":name: {name}", ":class: records", "",
            *(f"| {' | '.join(line)} |" for line in lines), "", ":::"]  # fmt: skip
