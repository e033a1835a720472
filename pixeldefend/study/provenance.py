"""Where the book's numbers come from: the records a build used, in tables, each record as a file to download."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from ..classifiers import load_classifier
from ..fingerprint import fingerprint
from ..images import DATA_SETS
from ..pixelcnn import PixelCNN
from ..pixelcnn.card import SOURCES
from ..weights import CONFIG
from .conditions import NAMES, Condition
from .records import read_signed

NAMED = {"density": "density", "classifier": "classifier", "fingerprint": "density"}  # weights, by their key in a record


@dataclass(frozen=True)
class Weights:
    """Trained weights: the name of their folder, "density" or "classifier", and their fingerprint."""

    name: str
    kind: str
    fingerprint: str


def weights_in(folder: Path) -> list[Weights]:
    """All densities in ``folder/pixelcnn`` and classifiers in ``folder/classifiers``."""
    densities = sorted(path.parent for path in (folder / "pixelcnn").glob(f"*/{CONFIG}"))
    found = [Weights(path.name, "density", fingerprint(PixelCNN.from_pretrained(path))) for path in densities]
    for path in sorted((folder / "classifiers").glob(f"*/{CONFIG}")):
        config = json.loads(path.read_text())
        net = load_classifier(config["data_set"], config["network"], training=config["training"], root=path.parents[1])
        found.append(Weights(path.parent.name, "classifier", fingerprint(net)))
    return found


def record_tables(root: Path, used: Mapping[str, Iterable[str]], weights: Iterable[Weights] = ()) -> str:
    """The records that notebooks used, as MyST Markdown: for each data set one table that a reader can unfold.

    Args:
        root: the checkout.
        used: for each notebook's name the files it read or wrote, relative to ``root``.
        weights: those whose fingerprints the records may name.

    Raises:
        ValueError: a record is damaged, or was edited after it had been written. (A missing one is ``FileNotFoundError``.)
    """
    chapters: dict[str, list[str]] = {}
    for notebook, files in used.items():
        for file in files:
            chapters.setdefault(file, []).append(notebook)
    names = {found.fingerprint: found for found in weights}
    tables: dict[str, list[str]] = {}
    for file in sorted(chapters):
        row = _row(file, read_signed(root / file), chapters[file], names)
        tables.setdefault(_data_set(file), []).append(row)
    return "\n\n".join(_table(title, rows) for title, rows in tables.items())


def _data_set(file: str) -> str:
    name = Path(file).name
    return next((SOURCES[data_set].title for data_set in DATA_SETS if name.startswith(data_set)), "Other")


def _table(title: str, rows: list[str]) -> str:
    head = ["| record | what | images | weights | computed in | used in |", "|---|---|--:|---|---|---|"]
    count = f"{len(rows)} record{'' if len(rows) == 1 else 's'}"
    return "\n".join([f"::::{{dropdown}} {title}: {count}", ":::{table}", ":class: records", "",
                      *head, *rows, "", ":::", "::::"])  # fmt: skip


def _row(file: str, content: dict, notebooks: list[str], names: Mapping[str, Weights]) -> str:
    config = content.get("config", {})
    cells = [
        f"{{download}}`{'/'.join(Path(file).with_suffix('').parts[3:])} <../{file}>`",
        _what(content, config),
        _images(content, config),
        "<br>".join(_weights(content, names)),
        ", ".join(_made(content)),
        ", ".join(f"{{doc}}`{name.split('_')[0].lstrip('0')} <notebooks/{name}>`" for name in notebooks),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _made(content: dict) -> list[str]:
    """How long a result took, and on what."""
    made = {"seconds": content.get("seconds"), **content.get("machine", {}), **content.get("made", {})}
    threads, kind = made.get("threads"), [made[key] for key in ("name", "instructions") if key in made]
    words = [] if made["seconds"] is None else [f"{made['seconds']}&nbsp;s"]
    words += [made["device"] + (f" ({', '.join(kind)})" if kind else "")] if "device" in made else []
    words += [f"{threads} thread{'' if threads == 1 else 's'}"] if threads else []
    return words + ([f"torch {made['torch']}"] if "torch" in made else [])


def _what(content: dict, config: dict) -> str:
    """A grid cell's condition in words; of any other file, what kind of thing it is."""
    wanted = [field.name for field in fields(Condition)]
    if not set(wanted) <= set(config):
        return f"likelihoods of {config['split']} images" if "bits_per_dim" in content else "measurement"
    condition = Condition(**{name: config[name] for name in wanted})
    words = ["measurement"] if "results" in content else []
    words += [NAMES[condition.attack] + (f" with eps {condition.eps}" if condition.eps else "")]
    words += [f"rounding: {condition.rounding}"] if condition.rounding != "outward" else []
    words += [f"on {condition.network}, {condition.training}"]
    if condition.defence != "none":
        words += [f"{condition.defence}" + (f" {condition.eps_defend}" if condition.eps_defend else "")]
    return "; ".join(words)


def _images(content: dict, config: dict) -> str:
    count = len(content["index"]) if "index" in content else config.get("images", "")
    return f"{count:,}" if isinstance(count, int) else ""


def _weights(content: dict, names: Mapping[str, Weights]) -> list[str]:
    """Name and fingerprint of all weights that a record's configuration names, at any depth; of those that are not at hand,
    such as a density's that others have replaced, their kind and fingerprint."""
    described = {key: value for key, value in content.items() if key != "results"}
    found = {}
    for key, value in _strings(described):
        if value in names:
            found[value] = f"{names[value].name} `{value}`"
        elif key in NAMED and re.fullmatch("[0-9a-f]{16}", value):  # the benchmark's density is named there as well
            found[value] = f"{NAMED[key]} `{value}`, not shipped"
    return list(found.values())


def _strings(content: object, key: str = "") -> Iterable[tuple[str, str]]:
    """All strings in a record, each with the key that it, or the list that it is in, has."""
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _strings(value, key)
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value, key)
