"""The readers return what was written, and refuse every damaged file with one line that names it."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
import torch

from pixeldefend.formats import CIFAR10_RECORD, read_cifar10, read_idx, read_idx_pair

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
LABELS = np.array([9, 0, 3, 3], np.uint8)
NAMES = ("data_batch_1.bin", "data_batch_2.bin")


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def record(label, red=0, green=0, blue=0):
    return bytes([label]) + bytes([red]) * 1024 + bytes([green]) * 1024 + bytes([blue]) * 1024


def archive(files, mode):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def refused(kind, call, *mentions):
    """The error is of this kind, one line long, and mentions these texts."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for text in mentions:
        assert str(text) in message


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_pair_is_read_back(tmp_path, pack):
    (tmp_path / "images").write_bytes(pack(idx(PIXELS)))
    (tmp_path / "labels").write_bytes(pack(idx(LABELS)))
    images, labels = read_idx_pair(tmp_path / "images", tmp_path / "labels")
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(images, torch.tensor(PIXELS)[:, None])
    assert labels.tolist() == LABELS.tolist()


def test_idx_tensors_are_writable(tmp_path):
    (tmp_path / "images").write_bytes(idx(PIXELS))
    (tmp_path / "labels").write_bytes(idx(LABELS))
    images, _ = read_idx_pair(tmp_path / "images", tmp_path / "labels")
    images += 1
    assert torch.equal(images[:, 0], torch.tensor(PIXELS + np.uint8(1)))


GOOD = idx(PIXELS)
GZIPPED = gzip.compress(GOOD)
DAMAGED_IDX = {
    "empty": (b"", "magic number"),
    "magic of labels": (idx(LABELS), "expected 0x00000803"),
    "magic of floats": (b"\0\0\x0d\x03" + GOOD[4:], "0x00000d03"),
    "cut in the header": (GOOD[:10], "truncated"),
    "cut in the data": (GOOD[:-1], "3136 bytes of data, the file holds 3135"),
    "bytes to spare": (GOOD + b"\0", "the file holds 3137"),
    "absurd header": (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "header announces"),
    "gzip cut": (GZIPPED[: len(GZIPPED) // 2], "truncated"),
    "gzip flipped": (GZIPPED[:-8] + bytes([GZIPPED[-8] ^ 1]) + GZIPPED[-7:], "corrupt"),
    "gzip of another file": (gzip.compress(b"<html>"), "magic number"),
    "not gzip inside": (b"\x1f\x8b" + bytes(40), "corrupt"),
}


@pytest.mark.parametrize("content, mention", DAMAGED_IDX.values(), ids=DAMAGED_IDX)
def test_damaged_idx_is_refused(tmp_path, content, mention):
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(content)
    refused(ValueError, lambda: read_idx(file, ndim=3), file, mention, "fresh copy")


@pytest.mark.parametrize(
    "pixels, labels, mentions",
    [
        (PIXELS, LABELS[:3], ("4 images", "3 labels")),
        (PIXELS, np.array([0, 1, 10, 11], np.uint8), ("label 10 of record 2", "labels")),
        (PIXELS[:0], LABELS[:0], ("images", "holds no images")),
    ],
    ids=["counts disagree", "label above 9", "no images"],
)
def test_inconsistent_idx_pair_is_refused(tmp_path, pixels, labels, mentions):
    (tmp_path / "images").write_bytes(idx(pixels))
    (tmp_path / "labels").write_bytes(idx(labels))
    refused(ValueError, lambda: read_idx_pair(tmp_path / "images", tmp_path / "labels"), *mentions)


def test_missing_idx_file_is_named(tmp_path):
    refused(FileNotFoundError, lambda: read_idx(tmp_path / "none.gz", ndim=1), tmp_path / "none.gz", "check")


FILES = {NAMES[0]: record(7, 1, 2, 3) + record(0, 9), NAMES[1]: record(9, blue=255)}
LAYOUTS = {
    "folder": None,
    "tar": ("w", "c.tar"),
    "tar.gz": ("w:gz", "c.tar.gz"),
    "tar.xz": ("w:xz", "c.tar.xz"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_cifar10_is_read_back(tmp_path, layout):
    source = tmp_path if layout is None else tmp_path / layout[1]
    if layout is None:
        for name, content in FILES.items():
            (tmp_path / name).write_bytes(content)
    else:
        # the archive's order is not the order asked for, and a stranger lies among the members
        source.write_bytes(archive(dict(reversed(FILES.items())) | {"readme.html": b"x"}, layout[0]))
    images, labels = read_cifar10(source, NAMES)
    assert (images.dtype, labels.dtype, tuple(images.shape)) == (torch.uint8, torch.int64, (3, 3, 32, 32))
    assert labels.tolist() == [7, 0, 9]
    assert images.amin((2, 3)).tolist() == images.amax((2, 3)).tolist() == [[1, 2, 3], [9, 0, 0], [0, 0, 255]]


def test_cifar10_planes_are_row_by_row(tmp_path):
    pixels = np.arange(3072) % 251
    (tmp_path / "test_batch.bin").write_bytes(bytes([1, *pixels.tolist()]))
    images, _ = read_cifar10(tmp_path, ["test_batch.bin"])
    assert images[0, 2, 5, 7].item() == (2 * 1024 + 5 * 32 + 7) % 251


@pytest.mark.parametrize(
    "content, mention",
    [
        (record(1)[:-1], f"{CIFAR10_RECORD - 1} bytes"),
        (record(1) + b"\0", "no multiple of 3073"),
        (b"", "holds no images"),
        (record(1) + record(10), "label 10 of record 1"),
    ],
    ids=["truncated", "bytes to spare", "empty", "label above 9"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar.gz"])
def test_damaged_cifar10_batch_is_refused(tmp_path, content, mention, packed):
    source = tmp_path / "c.tar.gz" if packed else tmp_path
    files = FILES | {NAMES[1]: content}
    if packed:
        source.write_bytes(archive(files, "w:gz"))
    else:
        for name, body in files.items():
            (tmp_path / name).write_bytes(body)
    refused(ValueError, lambda: read_cifar10(source, NAMES), source / NAMES[1], mention, "fresh copy")


# noise does not compress, so that half of the archive is less than all its batches
NOISE = {n: bytes([1]) + np.random.default_rng(1).integers(0, 256, 3072, dtype=np.uint8).tobytes() for n in NAMES}
MORE = {"test_batch.bin": np.random.default_rng(2).bytes(200_000)}
DAMAGES = {"cut": lambda whole: whole[: len(whole) // 2], "html": lambda _: b"<html>" * 200, "empty": lambda _: b""}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz"])
def test_damaged_archive_is_refused(tmp_path, suffix, damage):
    source = tmp_path / f"c.{suffix}"
    whole = archive(NOISE, "w" if suffix == "tar" else f"w:{suffix[4:]}")
    source.write_bytes(whole)
    assert len(read_cifar10(source, NAMES)[0]) == 2
    source.write_bytes(damage(whole))
    refused((ValueError, FileNotFoundError), lambda: read_cifar10(source, NAMES), source, "fresh copy")


@pytest.mark.parametrize("suffix", ["gz", "xz"])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9, 0.99])
def test_archive_with_a_flipped_bit_is_refused(tmp_path, suffix, where):
    """Even where the records still have the right size, the compressed stream's own checksum tells."""
    whole = bytearray(archive({name: content * 40 for name, content in NOISE.items()} | MORE, f"w:{suffix}"))
    whole[int(where * len(whole))] ^= 0x10
    source = tmp_path / f"c.tar.{suffix}"
    source.write_bytes(whole)
    refused(ValueError, lambda: read_cifar10(source, NAMES), source, "fresh copy")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])
def test_missing_batch_is_named(tmp_path, packed):
    source = tmp_path / "c.tar" if packed else tmp_path
    (tmp_path / NAMES[0]).write_bytes(FILES[NAMES[0]])
    if packed:
        source.write_bytes(archive({NAMES[0]: FILES[NAMES[0]]}, "w"))
    refused(FileNotFoundError, lambda: read_cifar10(source, NAMES), source, NAMES[1])


def test_missing_archive_is_named(tmp_path):
    refused(FileNotFoundError, lambda: read_cifar10(tmp_path / "none.tar.gz", NAMES), tmp_path / "none.tar.gz")
