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

    Where the new one cannot be brought there the old one stays. Killed between its two renames it leaves the old one beside,
    as ``.<name>.old``, and the next call puts the new one in place.
    """
    fresh, old = (destination.with_name(f".{destination.name}.{which}") for which in ("new", "old"))
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        shutil.move(new, fresh)  # this copies, and may fail, where ``new`` lies on another file system
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if destination.exists():
        shutil.rmtree(old, ignore_errors=True)
        destination.rename(old)
    fresh.rename(destination)
    shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path:
    """The folder for downloads: ``$PIXELDEFEND_CACHE`` or ``~/.cache/pixeldefend``."""
    chosen = os.environ.get("PIXELDEFEND_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "pixeldefend"
