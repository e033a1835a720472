"""What an executed notebook was made from, written into its metadata: by it a build knows whether to run it again."""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

STAMP = "pixeldefend"  # the key in an executed notebook's metadata


def digest_code(root: Path, source: Path, parameters: dict) -> str:
    """SHA-256 over a notebook's source, its parameters and the package in ``root``."""
    files = [source, *sorted((root / "pixeldefend").rglob("*.py"))]
    return _digest_files(root, files, json.dumps(parameters, sort_keys=True))


def digest_inputs(root: Path, start: str) -> str:
    """Extend a digest by the records and by what names the weights: their configuration and check sums."""
    data = root / "data"
    files = [path for path in (data / "records").rglob("*") if path.is_file()]
    files += [path for path in (data / "weights").rglob("*") if path.suffix in (".json", ".sha", ".sha256")]
    return _digest_files(root, sorted(files), start)


def _digest_files(root: Path, files: Sequence[Path], start: str) -> str:
    digest = hashlib.sha256(start.encode())
    for path in files:
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
