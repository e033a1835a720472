"""Checks committed records: a few images of each are computed again, and a record that disagrees is named.

Of the measurements, which are no grid cells, that of the attack on the whole system is checked: the attacked images that it
keeps. The others are not, nor are the reference likelihoods, which need the training images, nor a record whose
configuration is not today's; a build that needs it refuses it.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..classifiers import predict, saved_classifiers
from ..classifiers.inference import predict_pixels
from ..classifiers.store import classifier_name
from ..images import Images
from .conditions import DEAR, EPS_ATTACK, LOWER_ROWS, Condition
from .endtoend.attacks import AROUND, around_configuration, sizes_of
from .endtoend.check import kept_attacks
from .lab import Lab
from .records import Record, read_signed

IMAGES, DEAR_IMAGES = 2, 1  # of each record at first
MORE_IMAGES, MORE_DEAR_IMAGES = 12, 4  # of a record in doubt
SECONDS = 240.0  # what a build may spend on this, about
ALLOWED = 0.25  # share of those that may disagree
MOST = 0.5  # share of the kept images of BPDA that may be seen as another class: see `endtoend.check.kept_attacks`
TOLERANCES = {"exact": 1e-3, "attacked": 0.05, "purified": 0.1}  # bits per dimension: see `tolerance`
OTHER_PRECISION = {"exact": 0.05, "attacked": 0.1, "purified": 0.3}


class Disagreement(RuntimeError):
    """A record does not hold what its configuration gives; the message names it."""


@dataclass(frozen=True)
class Verified:
    """What was checked.

    ``records`` records of a ``profile``, ``images`` images in all, of which ``differing`` disagreed, too few of one
    record to refuse it; ``stale``: records with another configuration, not checked; ``unchecked``: records for which no
    time was left; ``measurements``: files that are no grid cells; ``attacks``: images that such files keep of the attack
    on the whole system, and that did again what is said of them. ``seed`` repeats the choice of images. It took
    ``seconds``.
    """

    profile: str
    records: int
    images: int
    differing: int
    stale: int
    unchecked: int
    measurements: int
    attacks: int
    seed: int
    seconds: float

    def __str__(self) -> str:
        if not self.records:
            return f"no stored record of profile {self.profile} was checked"
        text = (f"{self.images} randomly chosen images of {self.records} stored records of profile {self.profile} were "
                f"computed again and agree (seed {self.seed}, {self.seconds:.0f} s)")  # fmt: skip
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
    """Check every record of the grid in ``folder``: compute randomly chosen images of it again.

    Of each record `IMAGES` images (`DEAR_IMAGES` where the attack is a search) are attacked, defended, classified and
    scored again. An image disagrees where its label or predicted class differs, or its bits per dimension do by more than
    `tolerance`. That may happen to a single image on another processor; so a record with such an image is checked again
    on `MORE_IMAGES` images, and is refused if more than the share `ALLOWED` of those disagree.

    Args:
        folder: of the records, such as ``data/records/laptop``.
        profile: what they were made with: see `conditions.PROFILES`.
        seed: of the choice of images; by default the time, so that each build checks others.
        seconds: no further group of records is begun after these; the attacks on the whole system come first.
        device: as for `Lab`.

    Raises:
        Disagreement: a record does not agree.
        ValueError: a record is damaged, or was edited after it had been written.
    """
    started = time.perf_counter()
    seed = int(time.time()) if seed is None else seed

    @cache
    def lab_of(data_set: str) -> Lab:
        return Lab(data_set, profile, device=device, recompute=False)

    records, counts, measured = {}, Counter(), {}
    for path in sorted(Path(folder).glob("*.json")):
        content = read_signed(path)
        if "predictions" not in content:
            counts["measurements"] += 1
            measured[path] = content
            continue
        record = Record(**content)
        condition = Condition(**{field.name: record.config[field.name] for field in fields(Condition)})
        if is_current(lab_of(condition.data_set), condition, record):
            records[condition] = record
        else:
            counts["stale"] += 1
    for data_set in EPS_ATTACK:
        path = Path(folder) / f"{data_set}-{AROUND}.json"
        if path in measured:
            counts += _check_attacks(lab_of(data_set), path, measured[path])
    choice = random.Random(seed)
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


def _check_attacks(lab: Lab, path: Path, content: dict) -> Counter:
    """What `around_purification` keeps of its attacks, unless a build would not load it."""
    wanted = json.loads(json.dumps(around_configuration(lab, sizes_of(lab)))) if not lab.missing(LOWER_ROWS[:1]) else None
    if wanted is None or not lab.store.matches(content["config"], wanted):
        return Counter(stale=1)
    same = content["config"]["precision"] == lab.precision
    allowed = (TOLERANCES if same else OTHER_PRECISION)["exact"]
    wrong, other = kept_attacks(lab, content["results"], tolerance=allowed)
    differs = [a or b for a, b in zip(wrong, other, strict=True)]
    if any(wrong) or sum(other) > MOST * len(other):
        raise Disagreement(
            f"the measurement {path.name} does not hold what its configuration gives: of {len(differs)} attacked images "
            f"that it keeps {sum(differs)} do not do what it says; delete it, it will be computed again"
        )
    return Counter(attacks=len(differs) - sum(differs))


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
            if sum(more) > ALLOWED * len(more):
                named = ", ".join(str(p) for p, d in zip(positions, more, strict=True) if d)
                raise Disagreement(
                    f"the record {condition.name}.json does not hold what its configuration gives: of {len(more)} images "
                    f"computed again {sum(more)} disagree (test images {named}); delete it, it will be computed again"
                )
            differs = differs + more
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
