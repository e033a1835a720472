"""Records: what a run measured, image by image, in one small text file with everything it depended on.

Also a cache for what is dear to make and large: one tensor in a file, with everything it depended on.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

USED = "PIXELDEFEND_USED"


@dataclass(frozen=True)
class Record:
    """Results of one condition.

    ``config`` is all that decides the numbers (data, attack, defence, seeds, fingerprints of the weights); ``made`` says
    how they came about (seconds, device, versions). The lists run over the images: position in the split, label,
    predicted class (empty where nothing was classified), and bits per dimension of the image that was classified (empty
    where nothing was scored).
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


def note_use(path: Path) -> None:
    """Add a line to the file that the environment variable `USED` names, so that a build knows which records it used."""
    if os.environ.get(USED):
        with open(os.environ[USED], "a") as listing:
            listing.write(f"{path}\n")


def digest(content: dict) -> str:
    """SHA-256 of a record's content, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def write_signed(content: dict, path: Path) -> None:
    """Write ``content`` as JSON atomically, one line for each key, with a digest by which a later edit is noticed."""
    note_use(path)
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in {**content, "digest": digest(content)}.items())
    _write_whole(("{\n" + ",\n".join(lines) + "\n}\n").encode(), path)


def _write_whole(content: bytes, path: Path) -> None:
    """Write a file that is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def read_signed(path: Path) -> dict:
    """What `write_signed` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or was edited after it had been written.
    """
    note_use(path)
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


def tensor_digest(*tensors: Tensor) -> str:
    """SHA-256 over the tensors' values, 16 hexadecimal digits."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def keep_tensor(tensor: Tensor, config: dict, path: Path) -> None:
    """Write a tensor atomically, with all that decided its values and a digest by which damage is noticed."""
    described = {"config": digest(config), "tensor": tensor_digest(tensor)}
    _write_whole(save({"kept": tensor.cpu().contiguous()}, metadata=described), path)


def kept_tensor(config: dict, path: Path) -> Tensor | None:
    """What `keep_tensor` wrote for the same ``config``; ``None`` for another one and for a missing or damaged file."""
    try:
        with safe_open(path, "pt") as file:
            described, tensor = file.metadata() or {}, file.get_tensor("kept")
    except (FileNotFoundError, SafetensorError):
        return None
    return tensor if described == {"config": digest(config), "tensor": tensor_digest(tensor)} else None
