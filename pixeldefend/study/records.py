"""Records: what a run measured, image by image, in one small text file with everything it depended on."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Record:
    """Results of one condition.

    ``config`` is all that decides the numbers (data, attack, defence, seeds, fingerprints of the weights); ``made`` says
    how they came about (seconds, device, versions). The lists run over the images: position in the split, label,
    predicted class (empty where nothing was classified), and bits per dimension of the image that was classified.
    """

    config: dict
    index: list[int]
    labels: list[int]
    predictions: list[int]
    bits_per_dim: list[float]
    made: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def bits(self) -> Tensor:
        """Bits per dimension, float64 (N,)."""
        return torch.tensor(self.bits_per_dim, dtype=torch.float64)

    @property
    def correct(self) -> Tensor:
        """Which predictions equal the label, bool (N,)."""
        return torch.tensor(self.predictions) == torch.tensor(self.labels)

    @property
    def accuracy(self) -> float:
        return self.correct.double().mean().item()


def digest(content: dict) -> str:
    """SHA-256 of a record's content, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def write_signed(content: dict, path: Path) -> None:
    """Write ``content`` as JSON atomically, one line for each key, with a digest by which a later edit is noticed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in {**content, "digest": digest(content)}.items())
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    os.replace(partial, path)


def read_signed(path: Path) -> dict:
    """What `write_signed` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or was edited after it had been written.
    """
    try:
        content = json.loads(path.read_text())
        stored = content.pop("digest")
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is no record ({error}); delete it, it will be computed again") from None
    if digest(content) != stored:
        raise ValueError(f"{path.name} was changed after it had been written; delete it, it will be computed again")
    return content


def save_record(record: Record, path: Path) -> None:
    """Write a record atomically, with a digest by which a later edit is noticed."""
    write_signed(asdict(record), path)


def load_record(path: Path) -> Record:
    """Read a record. Raises as `read_signed`."""
    content = read_signed(path)
    try:
        return Record(**content)
    except TypeError as error:
        raise ValueError(f"{path.name} is no record ({error}); delete it, it will be computed again") from None
