"""Checks committed records: a few images of each are computed again, and a record that disagrees is named.

So are a few images of the measurements, which are no grid cells, as far as single images can be made again (see `measured`);
of the attack on the whole system the attacked images that it keeps are checked. Not checked are samples of the densities,
what needs the training images (reference likelihoods and thresholds), and a record whose configuration is not today's; a
build that needs it refuses it.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..classifiers import predict, saved_classifiers
from ..classifiers.inference import predict_pixels
from ..classifiers.store import classifier_name
from ..images import Images
from .conditions import DEAR, EPS_ATTACK, LOWER_ROWS, Condition
from .endtoend.attacks import AROUND, around_purification, sizes_of
from .endtoend.check import kept_attacks
from .lab import Lab
from .records import Record, read_signed
from .store import REPLACE, StaleRecord

if TYPE_CHECKING:
    from .measured import Check

IMAGES, DEAR_IMAGES = 2, 1  # of each record at first
MORE_IMAGES, MORE_DEAR_IMAGES = 12, 4  # of a record in doubt
SECONDS = 240.0  # what a build may spend on this, about
ALLOWED = 0.25  # share of those that may disagree
MOST = 0.5  # share of the kept images of BPDA that may be seen as another class: see `endtoend.check.kept_attacks`
CHANGES = {"mean change": 0.1, "largest change": 1}  # of a sub-pixel, in colour levels
TOLERANCES = {"exact": 1e-3, "attacked": 0.05, "purified": 0.1, **CHANGES}  # bits per dimension: see `tolerance`
OTHER_PRECISION = {"exact": 0.05, "attacked": 0.1, "purified": 0.3, **CHANGES}


class Disagreement(RuntimeError):
    """A record, or a measurement, does not hold what its configuration gives; the message names it."""


@dataclass(frozen=True)
class Verified:
    """What was checked.

    ``records`` records of a ``profile``, ``images`` images in all; ``measurements``, files that are no grid cells, on
    ``measured`` images in all. ``differing`` of all these images disagreed, too few of one file to refuse it. ``stale``:
    files with another configuration, not checked; ``unchecked``: files for which no time was left. ``attacks``: images that
    are kept of the attack on the whole system, and that did again what is said of them. ``seed`` repeats the choice of
    images. It took ``seconds``.
    """

    profile: str
    records: int
    images: int
    differing: int
    stale: int
    unchecked: int
    measurements: int
    measured: int
    attacks: int
    seed: int
    seconds: float

    def __str__(self) -> str:
        if not self.records and not self.measurements:
            return f"no stored record of profile {self.profile} was checked"
        others = f" and {self.measured} images of {self.measurements} measurements" if self.measurements else ""
        text = (f"{self.images} randomly chosen images of {self.records} stored records of profile {self.profile}{others} "
                f"were computed again and agree (seed {self.seed}, {self.seconds:.0f} s)")  # fmt: skip
        if self.differing:
            text += f", but for {self.differing} that rounding may have changed"
        if self.attacks:
            text += f"; of the attack on the whole system {self.attacks} stored images do again what is said of them"
        if self.unchecked:
            text += f"; not checked, for lack of time: {self.unchecked}"
        if self.stale:
            text += f"; not used, because of other weights or settings: {self.stale}"
        return text


@dataclass(frozen=True)
class _Job:
    """Conditions of one data set to check on the same images."""

    lab: Lab
    conditions: list[Condition]
    positions: list[int]


class _Part(Lab):
    """A lab with only some of another lab's test images, which neither reads nor keeps attacked images on disk."""

    def __init__(self, whole: Lab, positions: Sequence[int]):
        self.__dict__.update(whole.__dict__)  # networks are shared
        test = whole.test
        chosen = list(positions)
        self.test = Images(test.name, test.split, test.images[chosen], test.labels[chosen], test.classes, test.source)
        self._attacked, self._purified = {}, {}
        self._whole, self._positions = whole, chosen

    def _attack_or_cache(self, condition: Condition, count: int) -> Tensor:
        return self._attack(condition, count)

    def _attack(self, condition: Condition, count: int) -> Tensor:
        if condition.attack != "rand":
            return super()._attack(condition, count)
        whole = self._whole  # one draw of noise for all images
        return whole._attack(condition, whole._count(condition))[self._positions]


def tolerance(condition: Condition, *, same_precision: bool = True) -> float:
    """By how much bits per dimension may differ, from where they were computed to where they are checked.

    - A given image (clean, or with RAND's noise): only rounding of sums, far below 0.001.
    - An attacked image: where a gradient is nearly zero its sign follows the rounding, and a few sub-pixels with it.
    - A purified image: where two levels are nearly equally likely the choice follows the rounding, and what comes after
      follows the choice.

    Tried on 60 images of Fashion-MNIST. In batches of 2 instead of 60 nothing differed. With other convolution kernels
    (PyTorch's own instead of oneDNN's) no clean or FGSM image did; of BIM, 2 (eps 8) and 3 (eps 25) did, by up to 0.12
    and 0.05 bits; purified, the same ones by at most 0.02. No predicted class changed. Records that were made in bfloat16
    and are checked in float32 differ more: of 12 images of each of six records, those as they were attacked by up to 0.015
    bits, purified ones by up to 0.13, and again no predicted class.
    """
    changed = "exact" if condition.attack in ("clean", "rand") else "attacked"
    changed = "purified" if condition.defence == "pixeldefend" else changed
    return (TOLERANCES if same_precision else OTHER_PRECISION)[changed]


def verify(folder: Path, profile: str, *, seed: int | None = None, seconds: float = SECONDS,
           device: torch.device | str = "cpu") -> Verified:  # fmt: skip
    """Check every record in ``folder``: compute randomly chosen images of it again.

    Of each record of the grid `IMAGES` images (`DEAR_IMAGES` where the attack is a search) are attacked, defended,
    classified and scored again; each measurement of `measured.CHECKS` says how many, of those that all its columns have.
    An image disagrees where its label or predicted class differs, or its bits per dimension do by more than `tolerance`.
    That may happen to a single image on another processor; so a record with such an image is checked again on
    `MORE_IMAGES` images, and is refused if more than the share `ALLOWED` of those, and more than one, disagree.

    Args:
        folder: of the records, such as ``data/records/laptop``.
        profile: what they were made with: see `conditions.PROFILES`.
        seed: of the choice of images; by default the time, so that each build checks others.
        seconds: nothing further is begun after these; the attacks on the whole system and the measurements come first.
        device: as for `Lab`.

    Raises:
        Disagreement: a record does not agree.
        ValueError: a record is damaged, or was edited after it had been written.
    """
    from .measured import CHECKS  # with libraries for figures and statistics, which the command line need not wait for

    started = time.perf_counter()
    seed = int(time.time()) if seed is None else seed

    @cache
    def lab_of(data_set: str) -> Lab:
        lab = Lab(data_set, profile, device=device, recompute=False)
        lab.records, lab.store = Path(folder), replace(lab.store, keeps=REPLACE)  # whatever the profile, nothing is made
        return lab

    records, counts, measurements = {}, Counter(), {}
    for path in sorted(Path(folder).glob("*.json")):
        content = read_signed(path)
        if "predictions" not in content:
            measurements[path.stem] = content
            continue
        record = Record(**content)
        condition = Condition(**{field.name: record.config[field.name] for field in fields(Condition)})
        if is_current(lab_of(condition.data_set), condition, record):
            records[condition] = record
        else:
            counts["stale"] += 1
    choice = random.Random(seed)
    for lab in map(lab_of, EPS_ATTACK):
        if content := measurements.get(f"{lab.data_set}-{AROUND}"):
            counts += _check_attacks(lab, content)
        for name, check in CHECKS.items():
            if content := measurements.get(f"{lab.data_set}-{name}"):
                late = time.perf_counter() - started > seconds
                counts += Counter(unchecked=1) if late else _check_measurement(lab, name, check, content, choice)
    for job in _jobs(lab_of, records, choice):
        late = time.perf_counter() - started > seconds
        counts += Counter(unchecked=len(job.conditions)) if late else _check(job, records, choice)
    found = {field.name: counts[field.name] for field in fields(Verified) if field.type is int}
    return Verified(**found | {"profile": profile, "seed": seed, "seconds": time.perf_counter() - started})


def is_current(lab: Lab, condition: Condition, record: Record) -> bool:
    """Whether a build would load the record: its classifier and density are there, and its configuration is today's."""
    if classifier_name(condition.data_set, condition.network, condition.training) not in saved_classifiers():
        return False
    if condition.defence == "pixeldefend" and not lab.has_density:
        return False
    return lab.store.matches(record.config, lab.configuration(condition))


def _stored(lab: Lab, load: Callable[[Lab], Mapping]) -> Mapping | None:
    """A measurement that is on disk, or ``None`` if a build would not load it."""
    if lab.missing(LOWER_ROWS[:1]):
        return None
    try:
        return load(lab)
    except StaleRecord:
        return None


def _check_attacks(lab: Lab, content: dict) -> Counter:
    """What `around_purification` keeps of its attacks."""
    results = _stored(lab, lambda lab: around_purification(lab, sizes_of(lab)))
    if results is None:
        return Counter(stale=1)
    wrong, other = kept_attacks(lab, results, tolerance=_tolerances(content["config"], lab)["exact"])
    differs = [a or b for a, b in zip(wrong, other, strict=True)]
    if any(wrong) or sum(other) > MOST * len(other):
        raise Disagreement(
            f"the measurement {lab.data_set}-{AROUND}.json does not hold what its configuration gives: of {len(differs)} "
            f"attacked images that it keeps {sum(differs)} do not do what it says; delete it, it will be computed again"
        )
    return Counter(attacks=len(differs) - sum(differs))


def _check_measurement(lab: Lab, name: str, check: "Check", content: dict, choice: random.Random) -> Counter:
    """One of `measured.CHECKS`."""
    stored = _stored(lab, check.stored)
    if stored is None:
        return Counter(stale=1)
    count = min(map(len, stored.values()))

    def differing(wanted: int) -> tuple[list[int], list[bool]]:
        positions = sorted(choice.sample(range(count), min(wanted, count)))
        allowed = _tolerances(content["config"], lab)
        return positions, check.disagreeing(stored, _Part(lab, positions), positions, allowed)

    differs = differing(check.images)[1]
    if any(differs):
        differs = differs + _confirmed(f"measurement {lab.data_set}-{name}.json", *differing(MORE_IMAGES))
    return Counter(measurements=1, measured=len(differs), differing=sum(differs))


def _tolerances(config: dict, lab: Lab) -> dict[str, float]:
    """For what was made with a configuration; without a precision, in float32."""
    return TOLERANCES if config.get("precision", "float32") == lab.precision else OTHER_PRECISION


def _confirmed(called: str, positions: Sequence[int], differs: list[bool]) -> list[bool]:
    """``differs``, of more images of a result in doubt; raises `Disagreement` if they are too many."""
    if sum(differs) > max(1, ALLOWED * len(differs)):
        named = ", ".join(str(p) for p, d in zip(positions, differs, strict=True) if d)
        raise Disagreement(
            f"the {called} does not hold what its configuration gives: of {len(differs)} images computed again "
            f"{sum(differs)} disagree (test images {named}); delete it, it will be computed again"
        )
    return differs


def _jobs(lab_of: Callable[[str], Lab], records: dict[Condition, Record], choice: random.Random) -> list[_Job]:
    """Conditions that are checked together, on the same images, so that one attack serves every defence and rounding; those
    whose attack is a search come last, in random order."""
    groups: dict[tuple, list[Condition]] = {}
    for condition, record in records.items():
        net = (condition.network, condition.training) if condition.attack in DEAR else ()
        groups.setdefault((condition.data_set, len(record), *net), []).append(condition)
    jobs = [_Job(lab_of(key[0]), conditions, _choose(records[conditions[0]], choice, (IMAGES, DEAR_IMAGES)))
            for key, conditions in groups.items()]  # fmt: skip
    dear = [job for job in jobs if job.conditions[0].attack in DEAR]
    choice.shuffle(dear)
    return [job for job in jobs if job not in dear] + dear


def _choose(record: Record, choice: random.Random, counts: tuple[int, int]) -> list[int]:
    """As many positions in a record as the first of ``counts`` says, or the second where the attack is a search."""
    count = counts[record.config["attack"] in DEAR]
    return sorted(choice.sample(range(len(record)), min(count, len(record))))


def _check(job: _Job, records: dict[Condition, Record], choice: random.Random) -> Counter:
    counts = Counter(records=len(job.conditions))
    for condition, differs in disagreements(job.lab, records, job.conditions, job.positions).items():
        if any(differs):
            positions = _choose(records[condition], choice, (MORE_IMAGES, MORE_DEAR_IMAGES))
            more = disagreements(job.lab, records, [condition], positions)[condition]
            differs = differs + _confirmed(f"record {condition.name}.json", positions, more)
        counts += Counter(images=len(differs), differing=sum(differs))
    return counts


def disagreements(lab: Lab, records: dict[Condition, Record], conditions: Sequence[Condition],
                  positions: Sequence[int]) -> dict[Condition, list[bool]]:  # fmt: skip
    """For each condition, which of the images at ``positions`` of the test set disagree with its record."""
    part = _Part(lab, positions)
    seen = _classified_images(part, conditions)
    bits = _bits(part, {c: images for c, images in seen.items() if records[c].bits_per_dim})
    labels = part.test.labels.tolist()
    found = {}
    for condition, images in seen.items():
        net, record = part.classifier(condition.network, condition.training), records[condition]
        predictions = (predict if images.dtype == torch.uint8 else predict_pixels)(net, images).tolist()
        differs = [record.labels[p] != label or record.predictions[p] != prediction
                   for p, label, prediction in zip(positions, labels, predictions, strict=True)]  # fmt: skip
        if condition in bits:
            stored = record.bits[list(positions)]
            allowed = tolerance(condition, same_precision=record.config["precision"] == part.precision)
            differs = [d or not abs(b) <= allowed
                       for d, b in zip(differs, (bits[condition] - stored).tolist(), strict=True)]  # fmt: skip
        found[condition] = differs
    return found


def _classified_images(part: Lab, conditions: Sequence[Condition]) -> dict[Condition, Tensor]:
    """What the classifier sees under each condition."""
    part.purify_ahead(condition for condition in conditions if condition.defence == "pixeldefend")
    return {condition: part.defended(condition) for condition in conditions}


def _bits(part: Lab, seen: dict[Condition, Tensor]) -> dict[Condition, Tensor]:
    """Bits per dimension of each condition's images, float64, all scored at once."""
    if not seen:
        return {}
    bits = part.density.bits_per_dim(torch.cat(list(seen.values())), precision=part.precision).double().cpu()
    return dict(zip(seen, bits.split([len(images) for images in seen.values()]), strict=True))
