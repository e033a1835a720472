"""What is on disk and still holds: results are loaded where their configuration is the wanted one, or else made and kept."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..pixelcnn.precision import full_products
from .records import Record, load_record, read_signed, save_record, write_signed

RECOMPUTE, STALE = "PIXELDEFEND_RECOMPUTE", "stale"  # an environment variable, and one of its values
EARLIEST = 1e9  # seconds since 1970, in the year 2001: no build of this book began before
REPLACE = ("`make book RECOMPUTE=stale` makes such results anew and replaces them, as does Lab(..., recompute=\"stale\"); "
           "Lab(..., records=FOLDER) keeps yours apart")  # fmt: skip
REPLACE_REFERENCE = ("Lab(..., recompute=\"stale\") makes it anew, which takes the training images and hours, and replaces "
                     "it; a density of another name has its own")  # fmt: skip


def machine(device: torch.device) -> dict:
    """What a result is made on, without anything that names the machine itself."""
    described = {"device": device.type, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if device.type == "cuda":
        return described | {"name": torch.cuda.get_device_name(device)}
    return described | {"name": platform.machine(), "instructions": torch.backends.cpu.get_cpu_capability()}


class StaleRecord(ValueError):
    """A result on disk was made with other weights or settings than those at hand; the message names it and them."""


@dataclass(frozen=True)
class Store:
    """Loads or makes results.

    ``not_before`` (seconds since 1970) is the age beyond which a file counts as none; ``device`` is noted in what is made;
    the keys in ``free`` may have any value in the configuration of what is loaded. With ``keeps`` a file of another
    configuration is not replaced: asking for its results raises `StaleRecord`, which gives that text as advice.
    """

    device: torch.device | str = "cpu"
    not_before: float = 0.0
    free: tuple[str, ...] = ()
    keeps: str = ""

    def matches(self, found: dict, wanted: dict) -> bool:
        """Whether what was made with the configuration ``found`` holds where ``wanted`` is asked for."""
        return found | {key: wanted[key] for key in self.free if key in found and key in wanted} == wanted

    def is_recent(self, path: Path) -> bool:
        return path.exists() and path.stat().st_mtime >= self.not_before

    def record(self, path: Path, config: dict, evaluate: Callable[[], tuple[list, list, list]]) -> Record:
        """The record at ``path`` if it was made with ``config``, or one of the labels, predictions and bits per dimension
        that ``evaluate`` gives, which is then written there."""
        if self.is_recent(path):
            record = load_record(path)
            if self.matches(record.config, config):
                return record
            self._may_replace(path, record.config, config)
        started = time.perf_counter()
        with full_products(torch.device(self.device)):  # on a GPU, too, what a CPU can verify
            labels, predictions, bits = evaluate()
        record = Record(config, list(range(len(labels or bits))), labels, predictions, bits, self._made(started))
        save_record(record, path)
        return record

    def measurement(self, path: Path, config: dict, measure: Callable[[], dict]) -> dict:
        """The results at ``path`` if they were made with ``config``, or those of ``measure``, which are then written there.

        Both are plain values, and returned as they will be read again.
        """
        config = json.loads(json.dumps(config))
        if self.is_recent(path):
            content = read_signed(path)
            if self.matches(content.get("config", {}), config):
                return content["results"]
            self._may_replace(path, content.get("config", {}), config)
        started = time.perf_counter()
        with full_products(torch.device(self.device)):
            results = json.loads(json.dumps(measure()))
        write_signed({"config": config, "results": results, "made": self._made(started)}, path)
        return results

    def _may_replace(self, path: Path, found: dict, wanted: dict) -> None:
        if self.keeps:
            names = sorted(k for k in found.keys() | wanted.keys() if k not in self.free and found.get(k) != wanted.get(k))
            raise StaleRecord(f"the stored result {path.name} was made with another {' and '.join(names)}. {self.keeps}")

    def _made(self, started: float) -> dict:
        """How a result came about; the seconds are without attacks and purification that were done before."""
        return {"seconds": round(time.perf_counter() - started, 1), **machine(torch.device(self.device))}


def recomputing(wanted: bool | str | float | None) -> tuple[float, bool]:
    """The time (seconds since 1970) before which no result counts, and whether those that do not match are replaced.

    ``wanted`` is as for `Lab`; ``None`` for what the environment variable says. Raises ``ValueError`` for anything else.
    """
    if wanted is None:
        wanted = os.environ.get(RECOMPUTE) or False
    if wanted in (True, "1"):
        return time.time(), True
    if wanted in (False, "0", STALE):
        return 0.0, wanted == STALE
    try:
        not_before = float(wanted)
    except (TypeError, ValueError):
        not_before = 0.0
    if not not_before >= EARLIEST:  # any other number would recompute nothing, without a word
        raise ValueError(f"recompute, or {RECOMPUTE}, must be {STALE!r} or 1 or a time, seconds since 1970, not {wanted!r}")
    return not_before, True
