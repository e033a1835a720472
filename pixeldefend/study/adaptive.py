"""Adaptive PixelDefend (section 4.2): only images whose bits per dimension exceed a threshold are purified.

The paper (appendix B) sets the threshold, on validation data it does not name, "at the lowest value which did not decrease
the performance of the strongest adversary". Its section 4.2 speaks of a threshold on the *probability*, of which the lowest
is the highest in bits per dimension. Read in that way, and with "performance" taken for the accuracy that the strongest
attack leaves, the rule is what one would want: leave alone as many images as the strongest attack allows. This reading is
followed here, on held-out training images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from .. import attacks
from ..classifiers import predict
from ..defenses import PixelDefend
from ..pixelcnn import PixelCNN
from .conditions import SEARCHED
from .records import Record

ADVERSARIES = ("fgsm", "bim", *SEARCHED)  # candidates for the strongest one: RAND is none
STEP = 0.1  # bits per dimension, between the thresholds tried


@dataclass(frozen=True)
class Outcome:
    """What became of N images of one attack: their bits per dimension, and whether the classifier is right about them as
    they are and about them purified; lists of N."""

    bits: list[float]
    right: list[bool]
    right_purified: list[bool]

    def accuracy(self, threshold: float) -> float:
        """With all images purified but those at or below the threshold, bits per dimension."""
        kept = torch.tensor(self.bits, dtype=torch.float64) <= threshold
        right = torch.where(kept, torch.tensor(self.right), torch.tensor(self.right_purified))
        return right.double().mean().item()


def outcomes(net: nn.Module, density: PixelCNN, images: Tensor, labels: Tensor, *, eps_attacks: Sequence[int],
             eps_defend: int, precision: str = "float32") -> dict[str, Outcome]:  # fmt: skip
    """What `ADVERSARIES` at each eps, and no attack, do to a classifier with and without purification.

    Args:
        net: the undefended classifier, which is what is attacked; in eval mode.
        images, labels: uint8 (N, C, H, W) and int64 (N,).
        eps_attacks, eps_defend: colour levels.

    Returns {"clean", "fgsm 8", ...: outcome}.
    """
    purify = PixelDefend(density, eps_defend=eps_defend, precision=precision)
    attacked = {"clean": images}
    for name in ADVERSARIES:
        attacked |= _attacked(name, net, images, labels, eps_attacks)
    found = {}
    for name, batch in attacked.items():
        bits = density.bits_per_dim(batch, precision=precision).double()
        right = [(predict(net, seen) == labels).tolist() for seen in (batch, purify(batch))]
        found[name] = Outcome([round(value, 6) for value in bits.tolist()], *right)
    return found


def _attacked(name: str, net: nn.Module, images: Tensor, labels: Tensor, eps_attacks: Sequence[int]) -> dict[str, Tensor]:
    """By name and eps; a search, which does not depend on eps, runs once."""
    if name in SEARCHED:
        found = attacks.SEARCHES[name](net, images, labels, batch_size=len(images))
        return {f"{name} {eps}": attacks.to_levels(found, images, eps=eps) for eps in eps_attacks}
    return {f"{name} {eps}": attacks.ATTACKS[name](net, images, labels, eps=eps) for eps in eps_attacks}


def strongest_accuracy(found: Mapping[str, Outcome], eps: int, threshold: float) -> float:
    """The accuracy that the strongest attack at ``eps`` leaves, with all but the images below the threshold purified."""
    return min(outcome.accuracy(threshold) for name, outcome in found.items() if name.endswith(f" {eps}"))


def thresholds(found: Mapping[str, Outcome]) -> list[float]:
    """The thresholds tried: multiples of `STEP` from below all images of ``found`` to above all of them."""
    values = [bits for outcome in found.values() for bits in outcome.bits]
    first, last = int(min(values) / STEP) - 1, int(max(values) / STEP) + 1
    return [round(STEP * k, 6) for k in range(first, last + 1)]


def choose_threshold(found: Mapping[str, Outcome], eps_attacks: Sequence[int]) -> float:
    """The highest threshold at which the strongest attack, at no eps, leaves less than when every image is purified."""
    tried = thresholds(found)
    purified = {eps: strongest_accuracy(found, eps, tried[0]) for eps in eps_attacks}
    return max(t for t in tried if all(strongest_accuracy(found, eps, t) >= purified[eps] for eps in eps_attacks))


def as_plain(found: Mapping[str, Outcome]) -> dict:
    return {name: asdict(outcome) for name, outcome in found.items()}


def adaptive_record(plain: Record, purified: Record, threshold: float, config: dict) -> Record:
    """Of each image the result as it is, where it has at most ``threshold`` bits per dimension, or else that purified.

    Over the images of both, which are the first ones. Raises ``ValueError`` for records of different images or without
    bits per dimension.
    """
    count = min(len(plain), len(purified))
    if plain.labels[:count] != purified.labels[:count] or len(plain.bits_per_dim) < count:
        raise ValueError("the two records are not of the same images, scored before purification")
    kept = (plain.bits[:count] <= threshold).tolist()

    def chosen(before: list, after: list) -> list:
        return [b if keep else a for keep, b, a in zip(kept, before, after, strict=False)]

    return Record(
        config,
        plain.index[:count],
        plain.labels[:count],
        chosen(plain.predictions, purified.predictions),
        chosen(plain.bits_per_dim, purified.bits_per_dim),
        purified.made,
    )
