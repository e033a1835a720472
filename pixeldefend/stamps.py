"""What an executed notebook was made from, written into its metadata: by it a build knows whether to run it again."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

STAMP = "pixeldefend"  # the key in an executed notebook's metadata
ONLY_READ = ("images", "paper", "weights")  # folders in ``data`` where a notebook writes nothing


def digest_package(root: Path) -> str:
    """SHA-256 over the package in ``root``."""
    return _digest_files(root, sorted((root / "pixeldefend").rglob("*.py")), "")


def digest_inputs(root: Path, source: Path, parameters: dict) -> str:
    """SHA-256 over all that decides what a notebook shows, but for records: its source, its parameters, the package in
    ``root``, the images, the paper's numbers, the versions of the libraries, and of the weights all but themselves: their
    check sums stand for them."""
    data = [path for folder in ONLY_READ for path in (root / "data" / folder).rglob("*") if path.suffix != ".safetensors"]
    files = [source, root / "requirements.lock.txt", *sorted(data)]
    return _digest_files(root, files, digest_package(root) + json.dumps(parameters, sort_keys=True))


def digest_records(root: Path, start: str, used: Iterable[str]) -> str:
    """Extend a digest by the contents of the records in ``used`` (paths below ``root``), and by the names of all records.

    What a notebook did not use counts by its name alone: the notebook may look which records there are, but it must not be
    run again whenever another one stores its own.
    """
    names = sorted(path.relative_to(root).as_posix() for path in (root / "data" / "records").rglob("*.json"))
    return _digest_files(root, [root / path for path in sorted(used)], "\0".join([start, *names]))


def digest_pages(root: Path) -> str:
    """SHA-256 over what the book's pages are made of: the executed notebooks and the pages of text."""
    book = root / "book"
    return _digest_files(root, sorted([*book.rglob("*.ipynb"), *book.rglob("*.md")]), "")


def _digest_files(root: Path, files: Sequence[Path], start: str) -> str:
    """Extend a digest by those of ``files`` that there are."""
    digest = hashlib.sha256(start.encode())
    for path in files:
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"\0{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def read_stamp(executed: Path) -> dict:
    """What an executed notebook says it was made from; nothing when it is missing or unreadable."""
    try:
        return json.loads(executed.read_text(encoding="utf-8"))["metadata"][STAMP]
    except (OSError, ValueError, KeyError):
        return {}


def versions() -> dict:
    """Of what ran a notebook."""
    found = {package: metadata.version(package) for package in ("torch", "numpy")}
    return {"python": sys.version.split()[0], **found, "processors": os.cpu_count()}
