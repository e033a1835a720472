"""Weights on disk: safetensors in pieces below 50 MB, SHA-256 hashes beside them, read back piece by piece.

The files of a network's folder, named as is usual for Hugging Face:

- ``model.safetensors``; or, where one piece cannot hold it, ``model-00001-of-0000N.safetensors`` and so on, and
  ``model.safetensors.index.json``, which says in which piece each tensor is;
- ``config.json``: the network's sizes, written by others;
- ``SHA256SUMS``: the hash of each of these, in the format that ``sha256sum -c SHA256SUMS`` checks;
- ``scores.json`` and ``log.jsonl``: test scores and training log, written by others.
"""

import hashlib
import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .checks import check_count
from .hub import save_torch_state_dict

WEIGHTS, INDEX, SUMS = "model.safetensors", "model.safetensors.index.json", "SHA256SUMS"
CONFIG, SCORES, LOG = "config.json", "scores.json", "log.jsonl"
BEFORE, SECONDS_BEFORE = "images_seen_before", "training_seconds_before"  # in the scores of a warm start: of earlier runs
CALLS = "calls"  # in the scores of a run whose calls differed: how each was executed, see `loop.Job`
EARLIER = "earlier_runs"  # and what the scores of these said, the first run first
WEIGHT_FILES = ("model*.safetensors", INDEX, SUMS)  # patterns: all that `load_weights` may read
OWN_FILES = (*WEIGHT_FILES, CONFIG, SCORES, LOG, "README.md", "samples.png")  # all that a network's folder may hold
MAX_PIECE_SIZE = 49_000_000  # bytes of tensors; a file's header takes some more, and hosts warn from 50 MB on
RESTORE = "restore it from the repository or download it again"


def save_weights(state: dict[str, Tensor], folder: Path, *, max_piece_size: int = MAX_PIECE_SIZE) -> None:
    """Write a state dictionary to ``folder``, in place of what weights it has, in pieces, with their hashes.

    ``max_piece_size`` is in bytes; a single tensor that is larger becomes a larger piece.

    Raises ``TypeError`` or ``ValueError`` for a piece size that is no positive integer.
    """
    check_count(max_piece_size, name="max_piece_size")
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(dict(state), folder, max_shard_size=max_piece_size)
    for path in _weight_files(folder):
        path.chmod(0o644)  # safetensors leaves it readable to its owner only
    write_checksums(folder)


def check_replaceable(folder: Path, *, force: bool) -> None:
    """Refuse, before any work is done, a folder for weights that could not be made, that has others' files, as all in it is
    replaced, or, without ``force``, that has weights.

    Raises ``FileExistsError``.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; weights need a folder")
    if others := [path.name for path in sorted(folder.glob("*")) if not any(path.match(own) for own in OWN_FILES)]:
        raise FileExistsError(f"{folder} holds {others[0]}; weights need a folder of their own")
    if not force and folder.is_dir() and _weight_files(folder):
        raise FileExistsError(f"{folder} holds weights; choose another folder, or --force (force=True) to replace them")


def write_checksums(folder: Path) -> None:
    """Write ``SHA256SUMS`` for the weights and the configuration in ``folder``, taking them as they are: for what was saved
    without it, or with other hashes."""
    hashed = [path for path in (folder / CONFIG, *_weight_files(folder)) if path.is_file()]
    (folder / SUMS).write_text("".join(f"{_sha256(path)}  {path.name}\n" for path in hashed))


def check_config(folder: Path) -> None:
    """Refuse a configuration that is not the one saved with the weights: a size in it that does not show in these, such as
    that of the images, would otherwise go unnoticed. Without a hash of its own it is taken as it is.

    Raises ``FileNotFoundError`` where it, or the hashes, are missing, ``ValueError`` where it has another hash.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {RESTORE}")
    hashes = _read_checksums(folder)
    if path.name in hashes:
        _verify(path, hashes)


def read_scores(folder: Path) -> dict:
    """What ``scores.json`` holds. Raises ``FileNotFoundError`` where it is missing, ``ValueError`` where it is damaged."""
    path = folder / SCORES
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; {RESTORE}") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}); {RESTORE}") from error


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights in ``folder`` into ``model``, of the same parameters and buffers, keeping its types and devices.

    Each piece is first compared with its hash, then mapped into memory and copied; no two are held at once. Where
    anything is raised, ``model`` may hold a part of the weights.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, holds values that are not finite, or belongs to another network.

    Messages are one line, name the file and say what to do.
    """
    hashes = _read_checksums(folder)
    missing = set(model.state_dict())
    for path in _pieces(folder, hashes):
        _verify(path, hashes)
        missing -= _load_piece(model, path)
    if missing:
        raise ValueError(f"{folder} holds another network: its weights lack {min(missing)}; {RESTORE}")


def _weight_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("model*")) if path.suffix == ".safetensors" or path.name == INDEX]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_checksums(folder: Path) -> dict[str, str]:
    """The hash of each file by its name."""
    path = folder / SUMS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {RESTORE}")
    lines = path.read_text(errors="replace").splitlines()
    found = [re.fullmatch(r"([0-9a-f]{64}) [ *](\S+)", line) for line in lines]
    if not all(found):
        raise ValueError(f"{path} is damaged: line {found.index(None) + 1} is no hash and name; {RESTORE}")
    return {match[2]: match[1] for match in found}


def _verify(path: Path, hashes: dict[str, str]) -> None:
    """Refuse a file that is missing or not the one that was saved."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {RESTORE}")
    if path.name not in hashes:
        raise ValueError(f"{path.parent / SUMS} is damaged: it has no hash of {path.name}; {RESTORE}")
    digest = _sha256(path)
    if digest != hashes[path.name]:
        expected = f"its SHA-256 is {digest[:12]}..., not {hashes[path.name][:12]}... as {SUMS} says"
        raise ValueError(f"{path} is damaged or of another network ({expected}); {RESTORE}")


def _pieces(folder: Path, hashes: dict[str, str]) -> list[Path]:
    index = folder / INDEX
    if not index.is_file() and INDEX not in hashes:
        return [folder / WEIGHTS]
    _verify(index, hashes)
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged ({one_line(error)}); {RESTORE}") from error
    return [folder / name for name in sorted(names)]


def _load_piece(model: nn.Module, path: Path) -> set[str]:
    """Copy one file's tensors into the model and return their names."""
    try:
        with safe_open(path, framework="pt") as piece:
            tensors = {key: piece.get_tensor(key) for key in piece.keys()}
            foreign = model.load_state_dict(tensors, strict=False).unexpected_keys
            finite = all(value.isfinite().all() for value in tensors.values())
    except (SafetensorError, RuntimeError) as error:  # no safetensors file; tensors of other sizes
        raise ValueError(f"{path} is damaged or of another network ({one_line(error)}); {RESTORE}") from error
    if foreign:
        raise ValueError(f"{path} is of another network (it holds {foreign[0]}); {RESTORE}")
    if not finite:
        raise ValueError(f"{path} is damaged: it holds values that are not finite; {RESTORE}")
    return set(tensors)


def one_line(error: Exception) -> str:
    """An error's message for another one's, on one line and not too long."""
    return " ".join(str(error).split())[:200]
