"""Where things lie in a checkout, so that no other module spells out a folder."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"  # committed: embedded images, weights, records
EMBEDDED = DATA / "images"
WEIGHTS = DATA / "weights"
RECORDS = DATA / "records"
RUNS = ROOT / "runs"  # git-ignored: training runs and their checkpoints


def cache_folder() -> Path:
    """The folder for downloads: ``$PIXELDEFEND_CACHE`` or ``~/.cache/pixeldefend``."""
    chosen = os.environ.get("PIXELDEFEND_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "pixeldefend"
