"""A classifier that random noise fools (appendix A of the paper).

It answers as a ResNet does where an image costs less than a threshold in bits per dimension, and with a random label
elsewhere. On clean images it is about as good as the ResNet; noise moves nearly all images beyond the threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...checks import CLASSES
from ..figures import label
from ..records import Record
from ..tables import wilson_interval

SEED = 0
PAPER_NOISE_THRESHOLD = 4.5  # bits per dimension, for CIFAR-10
PAPER_IMAGES = 10_000
PAPER_ABOVE = {"clean": 175, "rand": 9_874}  # at 4.5 bits per dimension, RAND with eps 8
PAPER_ACCURACY = {"clean": 0.920, "rand": 0.873}  # of the ResNet


def estimated_accuracy(accuracy: float, above: int, images: int) -> float:
    """The paper's arithmetic: the ResNet's accuracy on what lies below the threshold, a guess's on the rest.

    It takes the ResNet to be as accurate below the threshold as it is overall.
    """
    if not 0 <= above <= images or not images:
        raise ValueError(f"need 0 <= above <= images and images > 0, not {above} of {images}")
    return (accuracy * (images - above) + above / CLASSES) / images


def matching_threshold(reference_bits: Tensor, *, share: float = PAPER_ABOVE["clean"] / PAPER_IMAGES) -> float:
    """Bits per dimension that ``share`` of the (N,) reference images reach or exceed, at least one of them.

    By default the share of the test images that the paper's threshold cut off.
    """
    if not len(reference_bits) or not 0 < share <= 1:
        raise ValueError(f"need reference images and a share in (0, 1], not {len(reference_bits)} and {share}")
    count = max(1, round(share * len(reference_bits)))
    return reference_bits.sort(descending=True).values[count - 1].item()


def noise_sensitive_predictions(record: Record, threshold: float, *, seed: int = SEED) -> Tensor:
    """What the classifier of appendix A answers on the images of a record: int64 (N,).

    Every image has its random label drawn, whether it is used or not, so that those of an image do not depend on the
    threshold.
    """
    if len(record.bits_per_dim) != len(record.predictions):
        raise ValueError("the record must hold a prediction and the bits per dimension of every image")
    guesses = torch.randint(CLASSES, (len(record),), generator=torch.Generator().manual_seed(seed))
    return torch.where(record.bits < threshold, torch.tensor(record.predictions), guesses)


@dataclass(frozen=True)
class Outcome:
    """Appendix A's counts for one kind of image; ``run`` is ``None`` where the classifier was not run (the paper)."""

    kind: str
    threshold: float
    images: int
    above: int
    accuracy: float  # of the ResNet
    run: int | None = None  # images that the classifier of appendix A gets right

    @property
    def estimate(self) -> float:
        return estimated_accuracy(self.accuracy, self.above, self.images)


PAPER = [Outcome(kind, PAPER_NOISE_THRESHOLD, PAPER_IMAGES, PAPER_ABOVE[kind], PAPER_ACCURACY[kind]) for kind in PAPER_ABOVE]


def outcome(kind: str, record: Record, threshold: float, *, seed: int = SEED) -> Outcome:
    """Count the images at or above the threshold, and run the classifier with random labels from ``seed``."""
    right = noise_sensitive_predictions(record, threshold, seed=seed) == torch.tensor(record.labels)
    above = int((record.bits >= threshold).sum())
    return Outcome(kind, threshold, len(record), above, record.accuracy, int(right.sum()))


def noise_table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table of outcomes, in percent with 95 % Wilson intervals where something was counted."""
    heads = ["images", "threshold", "n", "at or above it", "ResNet", "ResNet', estimate", "ResNet', run"]
    lines = ["| " + " | ".join(heads) + " |", "|---|--:|--:|:-:|:-:|:-:|:-:|"]
    for found in outcomes:
        share = f"{found.above}: {_percent(found.above, found.images)}"
        right = round(found.accuracy * found.images)
        run = "" if found.run is None else _percent(found.run, found.images)
        lines.append(
            f"| {label(found.kind)} | {found.threshold:.2f} | {found.images} | {share} | {_percent(right, found.images)} "
            f"| {100 * found.estimate:.1f} | {run} |"
        )
    return "\n".join(lines)


def noise_summary(clean: Outcome, noisy: Outcome) -> str:
    """A sentence on two outcomes that were run, at the same threshold."""
    if clean.run is None or noisy.run is None or clean.threshold != noisy.threshold:
        raise ValueError("need two outcomes of classifiers that were run at the same threshold")
    share, accuracy, run = (
        [f"{100 * value(found):.1f}&nbsp;%" for found in (clean, noisy)]
        for value in (lambda o: o.above / o.images, lambda o: o.accuracy, lambda o: o.run / o.images)
    )
    return (
        f"{share[0]} of {clean.images} clean images and {share[1]} of {noisy.images} noisy ones reach "
        f"{clean.threshold:.2f} bits per dimension; ResNet' classifies {run[0]} and {run[1]} correctly, "
        f"the ResNet {accuracy[0]} and {accuracy[1]}."
    )


def _percent(count: int, images: int) -> str:
    """Percent with one decimal; the bounds of the interval are rounded outward."""
    low, high = wilson_interval(count, images)
    return f"**{100 * count / images:.1f}**<br>[{math.floor(1000 * low) / 10:.1f},&nbsp;{math.ceil(1000 * high) / 10:.1f}]"
