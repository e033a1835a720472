"""Images and results in .npz files: read with suspicion, written whole or not at all."""

import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checks import check_images, check_labels
from ..images import DATA_SETS, load_images

UNFINISHED = ".unfinished"  # ends the name of a file that is being written
UNREADABLE = (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


@dataclass(frozen=True, eq=False)
class Batch:
    """Images to work on: uint8 (N, C, H, W), int64 labels (N,) or ``None``, and the data set's name if it is known."""

    images: Tensor
    labels: Tensor | None
    data_set: str | None
    source: str

    def needed_data_set(self) -> str:
        """The data set's name; ``ValueError`` where it is not known."""
        if self.data_set is None:
            raise ValueError(f"{self.source} does not say which data set its images are of; give --data-set")
        return self.data_set


def read_batch(source: str, *, split: str | None = None, limit: int | None = None,
               data_set: str | None = None) -> Batch:  # fmt: skip
    """Images from a data set ("fashion-mnist" or "cifar10", by default its test split) or from an .npz file.

    The file holds an array ``images`` and may hold ``labels`` and ``data_set``, which the argument ``data_set``
    overrides; ``limit`` takes the first images.

    Raises ``FileNotFoundError`` for a ``source`` that is neither, ``ValueError`` or ``TypeError`` for a damaged file,
    other arrays than the rest of the package takes, a ``split`` of a file, and a bad limit.
    """
    if source in DATA_SETS:
        if data_set not in (None, source):
            raise ValueError(f"--data-set {data_set} is for files; the images are of {source}")
        data = load_images(source, split or "test", limit=limit)
        return Batch(data.images, data.labels, source, f"{source} {data.split} ({data.source})")
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{source!r} is neither a file nor a data set ({', '.join(DATA_SETS)})")
    if split is not None:
        raise ValueError(f"--split is for data sets; {source} is a file")
    arrays = read_archive(path, "images")
    images = torch.from_numpy(arrays["images"])
    labels = torch.from_numpy(arrays["labels"]) if "labels" in arrays else None
    check_images(images, name=f"{source}: images")
    if labels is not None:
        check_labels(labels, images)
    size = len(images) if limit is None else limit
    if not 1 <= size <= len(images):
        raise ValueError(f"{source} holds {len(images)} images; the limit, {size}, must lie in 1..{len(images)}")
    if data_set is None and "data_set" in arrays:
        data_set = str(arrays["data_set"])
    return Batch(images[:size], None if labels is None else labels[:size], data_set, source)


def read_archive(path: Path, *needed: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file. Nothing is unpickled.

    Raises ``FileNotFoundError`` for no such file, ``ValueError`` for a damaged one and one without the ``needed``.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:  # numpy leaves a bad file open
            arrays = {name: archive[name] for name in archive.files}
    except (*UNREADABLE, AttributeError) as error:  # AttributeError: a single array, from an .npy file
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"{path} is not a readable .npz file ({type(error).__name__}: {reason})") from error
    if missing := [name for name in needed if name not in arrays]:
        raise ValueError(f"{path} lacks the array(s) {', '.join(missing)}; it holds: {', '.join(arrays) or 'none'}")
    return arrays


def write_archive(path: Path, **arrays) -> None:
    """Write tensors, arrays, numbers and texts so that ``path`` is, at every moment, the old file or the whole new one.

    What is ``None`` is left out.
    """
    values = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with open(unfinished, "wb") as file:  # given a name instead, numpy would append .npz to it
            np.savez(file, **values)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_output(path: Path, *, force: bool) -> None:
    """Refuse, before any work is done, an output that could not be written or, without ``force``, one that exists."""
    if path.suffix != ".npz":
        raise ValueError(f"the output must be named *.npz, not {path.name}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; --force overwrites it")


def digest(settings: dict, *tensors: Tensor) -> str:
    """SHA-256 of settings and tensors (images, labels): the identity of one computation."""
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in tensors:
        sha.update(f"\0{tensor.dtype}{tuple(tensor.shape)}\0".encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
