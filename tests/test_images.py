"""load_images: what each source gives, in which order they are asked, and what every wrong request is told."""

import gzip
import hashlib
import io
import struct
import tarfile
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from pixeldefend import images as module
from pixeldefend import paths
from pixeldefend.images import DATA_SETS, load_images

EMBEDDED = paths.EMBEDDED
ARCHIVE = "cifar-10-binary.tar.gz"
HELD_OUT = 3  # stands for 5,000 in these small data sets


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def put_fashion(folder, part="t10k", count=6, *, suffix="", first=0, side=28):
    """An IDX pair in which image i has the level first + i everywhere and the label i modulo 10."""
    folder.mkdir(parents=True, exist_ok=True)
    levels = np.arange(first, first + count, dtype=np.uint8)
    pack = gzip.compress if suffix else bytes
    pixels = np.repeat(levels, side * side).reshape(-1, side, side)
    (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(pixels)))
    (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx((levels - first) % 10)))


def cifar_files(per_batch=2, test=6):
    """Batches whose images have the running number within their part as the level of every plane."""
    counts = {f"data_batch_{i}.bin": per_batch for i in range(1, 6)}
    numbers = {name: range(i * per_batch, (i + 1) * per_batch) for i, name in enumerate(counts)}
    numbers["test_batch.bin"] = range(test)
    return {name: b"".join(bytes([n % 10]) + bytes([n]) * 3072 for n in ns) for name, ns in numbers.items()}


def cifar_archive(**counts):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in cifar_files(**counts).items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def put_cifar(folder, **counts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in cifar_files(**counts).items():
        (folder / name).write_bytes(content)


def levels(data):
    """The level of each (uniform) image."""
    assert torch.equal(data.images.amin((1, 2, 3)), data.images.amax((1, 2, 3)))
    return data.images[:, 0, 0, 0].tolist()


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """No source but those a test sets up: no embedded or system files, an own cache, a mirror that is down."""
    monkeypatch.setattr(paths, "EMBEDDED", tmp_path / "embedded")
    monkeypatch.setattr(module, "SYSTEM", tmp_path / "system")
    monkeypatch.setattr(module, "HELD_OUT", HELD_OUT)
    monkeypatch.delenv(module.ENVIRONMENT, raising=False)
    monkeypatch.setenv("PIXELDEFEND_CACHE", str(tmp_path / "cache"))
    for name, data_set in DATA_SETS.items():
        monkeypatch.setitem(DATA_SETS, name, replace(data_set, mirrors=("http://127.0.0.1:9/",)))


def refused(kind, call, *mentions):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for text in mentions:
        assert str(text) in message


LAYOUTS = {
    "fashion-mnist, plain": ("fashion-mnist", lambda root: put_fashion(root)),
    "fashion-mnist, gz": ("fashion-mnist", lambda root: put_fashion(root, suffix=".gz")),
    "fashion-mnist, sub-folder": ("fashion-mnist", lambda root: put_fashion(root / "fashion-mnist")),
    "fashion-mnist, torchvision": ("fashion-mnist", lambda root: put_fashion(root / "FashionMNIST" / "raw")),
    "cifar10, plain": ("cifar10", lambda root: put_cifar(root)),
    "cifar10, sub-folder": ("cifar10", lambda root: put_cifar(root / "cifar-10-batches-bin")),
    "cifar10, archive": ("cifar10", lambda root: (root / ARCHIVE).write_bytes(cifar_archive())),
}


@pytest.mark.parametrize("by_environment", [False, True], ids=["root", "environment"])
@pytest.mark.parametrize("name, put", LAYOUTS.values(), ids=LAYOUTS)
def test_named_folder(tmp_path, monkeypatch, name, put, by_environment):
    root = tmp_path / "mine"
    root.mkdir()
    put(root)
    if by_environment:
        monkeypatch.setenv(module.ENVIRONMENT, str(root))
    data = load_images(name, "test", root=None if by_environment else root)
    assert (data.name, data.split, data.source, len(data)) == (name, "test", "mine", 6)
    assert (data.images.dtype, data.labels.dtype) == (torch.uint8, torch.int64)
    assert tuple(data.images.shape) == (6, *DATA_SETS[name].shape)
    assert levels(data) == data.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.classes == DATA_SETS[name].classes and len(set(data.classes)) == 10


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize(
    "split, limit, expected",
    [
        ("train", None, [0, 1, 2, 3, 4, 5, 6]),
        ("train", 2, [0, 1]),
        ("held-out", None, [7, 8, 9]),
        ("held-out", 2, [7, 8]),
        ("test", None, [0, 1, 2, 3]),
        ("test", 3, [0, 1, 2]),
        ("test", 4, [0, 1, 2, 3]),
    ],
)
def test_splits_and_limit(tmp_path, name, split, limit, expected):
    put_fashion(tmp_path, "train", 10)
    put_fashion(tmp_path, "t10k", 4)
    put_cifar(tmp_path, per_batch=2, test=4)
    data = load_images(name, split, limit=limit, root=tmp_path)
    assert levels(data) == data.labels.tolist() == expected


def test_result_is_frozen_and_prints_no_pixels(tmp_path):
    put_fashion(tmp_path)
    data = load_images("fashion-mnist", "test", root=tmp_path)
    with pytest.raises(FrozenInstanceError):
        data.source = "elsewhere"
    assert len(repr(data)) < 120 and str(tmp_path.parent) not in repr(data)


@pytest.mark.parametrize(
    "limit, sources, expected",
    [
        (2, ("folder", "embedded", "system", "cache"), "folder"),
        (2, ("embedded", "system", "cache"), "embedded"),
        (4, ("embedded", "system", "cache"), "embedded"),
        (5, ("embedded", "system", "cache"), "system copy"),
        (None, ("embedded", "system", "cache"), "system copy"),
        (2, ("system", "cache"), "system copy"),
        (2, ("cache",), "download"),
        (None, ("embedded", "cache"), "download"),
    ],
    ids=str,
)
def test_order_of_sources(tmp_path, monkeypatch, limit, sources, expected):
    """The embedded subset (4 of 6 images here) serves limits it can fill, never the whole split."""
    if expected == "download":
        pytest.importorskip("pooch")
    whole = cifar_archive(test=6)
    known = replace(
        DATA_SETS["cifar10"],
        sizes={"train": 10, "test": 6},
        embedded={"test": 4},
        checksums={ARCHIVE: hashlib.sha256(whole).hexdigest()},
    )
    monkeypatch.setitem(DATA_SETS, "cifar10", known)
    for source in sources:
        (tmp_path / source).mkdir()
        (tmp_path / source / ARCHIVE).write_bytes(cifar_archive(test=4) if source == "embedded" else whole)
    data = load_images("cifar10", "test", limit=limit, root=tmp_path / "folder" if "folder" in sources else None)
    assert (data.source, len(data)) == (expected, limit or 6)


def test_embedded_full_split_serves_no_limit(tmp_path, monkeypatch):
    monkeypatch.setitem(
        DATA_SETS, "fashion-mnist", replace(DATA_SETS["fashion-mnist"], sizes={"test": 6}, embedded={"test": 6})
    )
    put_fashion(tmp_path / "embedded" / "fashion-mnist")
    assert load_images("fashion-mnist", "test").source == "embedded"


def test_environment_folder_without_the_data_set_is_passed_over(tmp_path, monkeypatch):
    put_cifar(tmp_path / "mine")
    put_fashion(tmp_path / "system" / "fashion-mnist")
    monkeypatch.setenv(module.ENVIRONMENT, str(tmp_path / "mine"))
    assert load_images("fashion-mnist", "test").source == "system copy"


def test_root_is_the_only_source_and_beats_the_environment(tmp_path, monkeypatch):
    put_cifar(tmp_path / "mine")
    put_fashion(tmp_path / "system" / "fashion-mnist")
    put_fashion(tmp_path / "environment")
    monkeypatch.setenv(module.ENVIRONMENT, str(tmp_path / "environment"))
    refused(FileNotFoundError, lambda: load_images("fashion-mnist", "test", root=tmp_path / "mine"), "mine", "t10k")


WRONG_REQUESTS = {
    "unknown data set": (("mnist", "test"), {}, ValueError, "data set 'mnist'", "cifar10, fashion-mnist"),
    "unknown split": (("cifar10", "valid"), {}, ValueError, "split 'valid'", "held-out, test, train"),
    "zero": (("cifar10", "test"), {"limit": 0}, ValueError, "at least 1, not 0"),
    "negative": (("cifar10", "test"), {"limit": -1}, ValueError, "at least 1, not -1"),
    "a float": (("cifar10", "test"), {"limit": 5.0}, TypeError, "integer", "5.0"),
    "a bool": (("cifar10", "test"), {"limit": True}, TypeError, "integer", "True"),
    "more than the official test set": (("cifar10", "test"), {"limit": 10_001}, ValueError, "10001", "10000 images"),
    "more than is held out": (("cifar10", "held-out"), {"limit": 4}, ValueError, "limit=4", "has 3 images"),
    "more than the folder holds": (("cifar10", "test"), {"limit": 7}, ValueError, "limit=7", "mine", "6 images"),
    "missing folder": (("cifar10", "test"), {"root": "no-such-folder"}, FileNotFoundError, "no-such-folder", "root"),
}


@pytest.mark.parametrize("request_", WRONG_REQUESTS.values(), ids=WRONG_REQUESTS)
def test_wrong_request(tmp_path, request_):
    arguments, options, kind, *mentions = request_
    put_cifar(tmp_path / "mine")
    refused(kind, lambda: load_images(*arguments, **{"root": tmp_path / "mine"} | options), *mentions)


def test_missing_environment_folder_names_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv(module.ENVIRONMENT, str(tmp_path / "gone"))
    refused(FileNotFoundError, lambda: load_images("cifar10", "test"), tmp_path / "gone", module.ENVIRONMENT)


def drop(name):
    return lambda root: (root / name).unlink()


WRONG_FOLDERS = {
    "labels missing": ("fashion-mnist", "test", drop("t10k-labels-idx1-ubyte"), FileNotFoundError, "t10k-labels"),
    "images missing": ("fashion-mnist", "test", drop("t10k-images-idx3-ubyte"), FileNotFoundError, "t10k-images"),
    "batch missing": ("cifar10", "train", drop("data_batch_4.bin"), FileNotFoundError, "data_batch_4.bin"),
    "other images": ("fashion-mnist", "test", lambda root: put_fashion(root, side=8), ValueError, "(1, 8, 8)"),
    "nothing left to train on": ("cifar10", "train", lambda root: cut_train(root), ValueError, "held out"),
    "nothing to hold out": ("cifar10", "held-out", lambda root: cut_train(root), ValueError, "held out"),
}


def cut_train(root):
    """As many training images as are held out."""
    for name, content in cifar_files(per_batch=1).items():
        (root / name).write_bytes(content)


@pytest.mark.parametrize("name, split, damage, kind, mention", WRONG_FOLDERS.values(), ids=WRONG_FOLDERS)
def test_wrong_folder(tmp_path, monkeypatch, name, split, damage, kind, mention):
    monkeypatch.setattr(module, "HELD_OUT", 5)
    put_fashion(tmp_path)
    put_cifar(tmp_path)
    load_images(name, split, root=tmp_path)
    damage(tmp_path)
    refused(kind, lambda: load_images(name, split, root=tmp_path), mention)


def test_fashion_mnist_download_asks_for_the_split_only(tmp_path, monkeypatch):
    asked = []

    def fetch(file, folder, checksum, mirrors, *, advice):
        asked.append((file, folder.name, checksum))
        return tmp_path / file

    put_fashion(tmp_path, "train", 10, suffix=".gz")
    monkeypatch.setattr(module, "_fetch", fetch)
    assert load_images("fashion-mnist", "held-out").source == "download"
    names = [f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    assert asked == [(name, "fashion-mnist", DATA_SETS["fashion-mnist"].checksums[name]) for name in names]


# The images embedded in the repository --------------------------------------------------------------------------------

# The first labels as the data sets' own test files have them, known independently of this repository.
FIRST = {"fashion-mnist": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7], "cifar10": [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]}


@pytest.mark.parametrize(
    "name, limit, count", [("fashion-mnist", None, 10_000), ("cifar10", 1_000, 1_000)], ids=["fashion-mnist", "cifar10"]
)
def test_embedded_images(monkeypatch, name, limit, count):
    monkeypatch.setattr(paths, "EMBEDDED", EMBEDDED)
    data = load_images(name, "test", limit=limit)
    assert (data.source, len(data), DATA_SETS[name].embedded["test"]) == ("embedded", count, count)
    assert data.labels[:10].tolist() == FIRST[name]
    assert data.labels.unique().tolist() == list(range(10))
    assert data.images.amin() == 0 and data.images.amax() == 255


def test_embedded_fashion_mnist_is_official():
    for kind in ("images-idx3", "labels-idx1"):
        file = EMBEDDED / "fashion-mnist" / f"t10k-{kind}-ubyte.gz"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == DATA_SETS["fashion-mnist"].checksums[file.name]


def test_embedded_files_are_small_and_described():
    readme = (paths.DATA / "README.md").read_text(encoding="utf-8")
    files = [file for file in EMBEDDED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8e6
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() in readme
        assert f"{file.stat().st_size:,}" in readme
