"""Where things lie in a checkout, so that no other module spells out a folder."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"  # committed: embedded images, weights, records
EMBEDDED = DATA / "images"
WEIGHTS = DATA / "weights"
RECORDS = DATA / "records"
RUNS = ROOT / "runs"  # git-ignored: training runs and their checkpoints


def replace_folder(new: Path, destination: Path) -> None:
    """Put ``new`` where ``destination`` is; a reader never meets a half-copied folder.

    Killed between its two steps it leaves the old folder as ``destination`` with ``.old`` behind, and the next call puts
    the new one in place.
    """
    old = destination.with_name(destination.name + ".old")
    destination.parent.mkdir(parents=True, exist_ok=True)
    if destination.exists():
        shutil.rmtree(old, ignore_errors=True)
        destination.rename(old)
    shutil.move(new, destination)
    shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path:
    """The folder for downloads: ``$PIXELDEFEND_CACHE`` or ``~/.cache/pixeldefend``."""
    chosen = os.environ.get("PIXELDEFEND_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "pixeldefend"
