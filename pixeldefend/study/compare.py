"""How the results of a build that computed everything anew differ from those that it replaced."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .records import Record, read_signed


@dataclass(frozen=True)
class Compared:
    """What computing results a second time changed.

    ``records`` grid cells were compared, ``images`` images in all, of which ``changed`` are now predicted as another class;
    the largest difference of a cell's accuracy is ``points`` percentage points, in the record ``least_alike``, and that of a
    mean ``bits`` per dimension. Of ``measurements``, files that are no grid cells, ``same`` hold the same to the last
    digit. ``other``: files in the place of damaged ones, or of such with other weights or settings; they are not compared.
    """

    profile: str
    records: int
    images: int
    changed: int
    points: float
    least_alike: str
    bits: float
    measurements: int
    same: int
    other: int

    def __str__(self) -> str:
        if not self.records and not self.measurements:
            return f"no stored record of profile {self.profile} was replaced by one that can be compared with it"
        text = (f"{self.records} records of profile {self.profile} were computed anew and compared with those that they "
                f"replace: of {self.images:,} images {self.changed:,} are predicted as another class")  # fmt: skip
        if self.changed:
            text += f", a record's accuracy differs by at most {self.points:.1f} points ({self.least_alike})"
        text += f", and a record's mean bits per dimension by at most {self.bits:.4f}"
        if self.measurements:
            text += f"; of {self.measurements} measurements {self.same} are the same to the last digit"
        if self.other:
            text += f"; not compared, because of other weights or settings, or damage: {self.other}"
        return text


def set_aside(records: Path, folder: Path) -> None:
    """Copy the files in ``records`` to ``folder``, in place of what lay there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in records.glob("*.json"):
        shutil.copy2(path, folder)


def compare(before: Path, after: Path, profile: str, *, since: float) -> Compared:
    """Compare the files in ``after`` that were written at ``since`` (seconds since 1970) or later with those of the same
    names in ``before``, where `set_aside` put them."""
    anew = sorted(path for path in after.glob("*.json") if path.stat().st_mtime >= since and (before / path.name).exists())
    pairs = [(path.stem, _content(before / path.name), read_signed(path)) for path in anew]
    alike = [(name, old, new) for name, old, new in pairs if old.get("config") == new["config"]]
    cells = [(name, Record(**old), Record(**new)) for name, old, new in alike if "predictions" in new]
    measured = [old["results"] == new["results"] for _, old, new in alike if "predictions" not in new]
    worst = max(cells, key=lambda cell: _points(*cell[1:]), default=None)
    return Compared(
        profile,
        records=len(cells),
        images=sum(len(new) for _, _, new in cells),
        changed=sum(a != b for _, old, new in cells for a, b in zip(old.predictions, new.predictions, strict=True)),
        points=_points(*worst[1:]) if worst else 0.0,
        least_alike=worst[0] if worst else "",
        bits=max((_apart(old.bits_per_dim, new.bits_per_dim) for _, old, new in cells), default=0.0),
        measurements=len(measured),
        same=sum(measured),
        other=len(pairs) - len(alike),
    )


def _content(path: Path) -> dict:
    """What a file holds that was set aside; nothing, where it is damaged or was edited, perhaps why all is made anew."""
    try:
        return read_signed(path)
    except ValueError:
        return {}


def _points(old: Record, new: Record) -> float:
    return 100 * abs(new.accuracy - old.accuracy)


def _apart(old: Sequence[float], new: Sequence[float]) -> float:
    """By how much two means differ; 0 where nothing was scored."""
    return abs(sum(new) / len(new) - sum(old) / len(old)) if old and new else 0.0
