"""Readers for the two file formats the data sets come in: IDX and CIFAR-10's binary records.

Both are plain bytes behind a fixed layout, so nothing is ever unpickled and no archive is unpacked to disk. A file that
is missing, truncated, corrupt or inconsistent raises one line that names it and says what to do.
"""

import gzip
import lzma
import struct
import tarfile
import zlib
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from pixeldefend.checks import CLASSES

CIFAR10_SHAPE = (3, 32, 32)
CIFAR10_RECORD = 1 + 3 * 32 * 32  # a label byte, then the red, green and blue planes
GZIP_MAGIC = b"\x1f\x8b"
IDX_UBYTE = 0x08
REMEDY = "replace it with a fresh copy"


def read_idx(path: Path | str, *, ndim: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzip-compressed (told apart by content, not by name).

    Layout (Y. LeCun's page on MNIST): two zero bytes, the element type (0x08, unsigned byte), the number of
    dimensions, then each dimension's size as a big-endian uint32, then the elements, last index fastest.

    Returns a read-only uint8 array with ``ndim`` axes. Raises ``FileNotFoundError`` for a missing file, ``ValueError``
    for a wrong magic number, a truncated or corrupt file, or a size that disagrees with the header.
    """
    path = Path(path)
    with _named_errors(path):
        content = path.read_bytes()
        if content[:2] == GZIP_MAGIC:
            content = gzip.decompress(content)
    magic, start = bytes((0, 0, IDX_UBYTE, ndim)), 4 + 4 * ndim
    if content[:4] != magic:
        raise ValueError(f"{path}: wrong magic number 0x{content[:4].hex()}, expected 0x{magic.hex()}; {REMEDY}")
    if len(content) < start:
        raise ValueError(f"{path} is truncated inside its header; {REMEDY}")
    shape = struct.unpack(f">{ndim}I", content[4:start])
    # Python integers, so that absurd sizes in a corrupt header cannot overflow; nothing is allocated from the header
    expected = 1
    for size in shape:
        expected *= size
    if len(content) - start != expected:
        raise ValueError(
            f"{path}: header announces {expected} bytes of data, the file holds {len(content) - start}; {REMEDY}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_idx_pair(images: Path | str, labels: Path | str) -> tuple[Tensor, Tensor]:
    """Read grey images and their labels from two IDX files, as MNIST and Fashion-MNIST store them.

    Returns uint8 images of shape (N, 1, H, W) and int64 labels of shape (N,) in 0..9. Raises as :func:`read_idx` does,
    and ``ValueError`` when there are no images, the two counts disagree, or a label lies above 9.
    """
    pixels, classes = read_idx(images, ndim=3), read_idx(labels, ndim=1)
    if len(pixels) != len(classes):
        counts = f"{images} holds {len(pixels)} images, {labels} {len(classes)} labels"
        raise ValueError(f"{counts}; take both from one copy")
    _check_records(classes, images if not len(pixels) else labels)
    return _tensors(pixels[:, None], classes)


def read_cifar10(source: Path | str, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Read CIFAR-10 batches in the binary version's layout (Krizhevsky 2009) from a folder or a tar archive.

    ``source`` is a folder, or an archive (.tar, .tar.gz, .tar.xz, ...) that holds the files at any depth; ``names`` are
    the batch files, such as ``("test_batch.bin",)``, and the records come back in that order. A batch is any positive
    number of 3073-byte records, so that copies with fewer than the official 10,000 per file are readable.

    Returns uint8 images of shape (N, 3, 32, 32) and int64 labels of shape (N,) in 0..9. Raises ``FileNotFoundError``
    when the source or a batch is missing, ``ValueError`` for a corrupt archive, a size that is no multiple of 3073, or
    a label above 9.
    """
    source = Path(source)
    with _named_errors(source):
        batches = _folder_batches(source, names) if source.is_dir() else _archive_batches(source, names)
    records = []
    for name in names:
        if name not in batches:
            raise FileNotFoundError(f"{source} lacks {name}; {REMEDY}")
        records.append(_cifar10_records(batches[name], source / name))
    pixels = np.concatenate([batch[:, 1:] for batch in records])
    return _tensors(pixels.reshape(-1, *CIFAR10_SHAPE), np.concatenate([batch[:, 0] for batch in records]))


def _folder_batches(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _archive_batches(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The wanted members' contents, read in one pass: seeking back in a compressed archive would decompress it anew."""
    batches = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if name in names and member.isfile():
                batches[name] = tar.extractfile(member).read()
        while tar.fileobj.read(1 << 20):  # to the compressed stream's end, where its checksum is verified
            pass
    return batches


def _cifar10_records(content: bytes, path: Path) -> np.ndarray:
    if len(content) % CIFAR10_RECORD:
        raise ValueError(
            f"{path}: {len(content)} bytes are no multiple of {CIFAR10_RECORD}, the size of a record; "
            f"the file is truncated or of another format, {REMEDY}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR10_RECORD)
    _check_records(records[:, 0], path)
    return records


def _check_records(labels: np.ndarray, path: Path | str) -> None:
    if not len(labels):
        raise ValueError(f"{path} holds no images; {REMEDY}")
    if labels.max() >= CLASSES:
        first = int(np.argmax(labels >= CLASSES))
        raise ValueError(f"{path}: label {labels[first]} of record {first} lies outside 0..{CLASSES - 1}; {REMEDY}")


def _tensors(pixels: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    # copies, because tensors must not share the read-only memory of the file's bytes
    return torch.from_numpy(pixels.copy()), torch.from_numpy(labels.astype(np.int64))


@contextmanager
def _named_errors(path: Path):
    """Turn what a missing or damaged file raises, in five libraries' words, into one line that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist; check the folder's name and what it holds") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, lzma.LZMAError) as error:
        raise ValueError(f"{path} is truncated, corrupt or of another format; {REMEDY}") from error
