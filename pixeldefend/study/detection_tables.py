"""Tables on detection: ROC curves in numbers, the calibration of p-values, and what the paper's Figure 3 claims."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import ks_2samp, kstest
from torch import Tensor

from ..detection import Z_95, auc_interval, detected, p_values, roc
from .figures import label
from .tables import percent_interval

FALSE_POSITIVE_RATES = (0.01, 0.05)
LARGE = ("rand", "fgsm", "bim")  # "attacks producing larger perturbations" (section 3)


def auc_cell(clean: Tensor, adversarial: Tensor) -> str:
    """Area under the ROC curve with its 95 % interval, rounded outward, in Markdown; scores as for `detection.roc`."""
    low, high = auc_interval(clean, adversarial)
    bounds = f"[{math.floor(1000 * low) / 1000:.3f},&nbsp;{math.ceil(1000 * high) / 1000:.3f}]"
    return f"**{roc(clean, adversarial).auc:.3f}**<br>{bounds}"


def detected_cell(clean: Tensor, adversarial: Tensor, *, false_positive_rate: float) -> str:
    """Percent of adversarial images found at a rate of false positives, with its 95 % interval, in Markdown.

    The interval is Wilson's, with the threshold taken as given.
    """
    found = detected(clean, adversarial, false_positive_rate=false_positive_rate)
    return f"**{100 * found / len(adversarial):.1f}**<br>{percent_interval(found, len(adversarial))}"


def detection_table(positives: Mapping[str, Tensor], clean: Tensor, *,
                    rates: Sequence[float] = FALSE_POSITIVE_RATES,
                    paper: tuple[Mapping[str, Tensor], Tensor] | None = None) -> str:  # fmt: skip
    """ROC curves in numbers, as a Markdown table: a row for each kind of image, with its number of images.

    Args:
        positives: p-values of the images to be found; a key is the row's title, or one of `conditions.NAMES`.
        clean: p-values of the negatives, the same for all rows; their number stands in the head.
        rates: of false positives; each is a column with the share of positives found.
        paper: positives (with the same keys) and negatives as the paper takes them; a last column with that AUC.
    """
    heads = ["images", "n", f"AUC<br>{_negatives(clean)}"]
    heads += [f"found in %, at {100 * rate:g}&nbsp;% false positives" for rate in rates]
    heads += [f"AUC, as in the paper<br>{_negatives(paper[1])}"] if paper else []
    lines = ["| " + " | ".join(heads) + " |", "|---|--:|" + ":-:|" * (len(heads) - 2)]
    for title, values in positives.items():
        cells = [label(title), f"{len(values)}", auc_cell(clean, values)]
        cells += [detected_cell(clean, values, false_positive_rate=rate) for rate in rates]
        cells += [auc_cell(paper[1], paper[0][title])] if paper else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _negatives(clean: Tensor) -> str:
    return f"n&nbsp;=&nbsp;{len(clean)} negatives"


@dataclass(frozen=True)
class Calibration:
    """How close the p-values of clean images come to the uniform distribution.

    ``distance`` is the Kolmogorov-Smirnov statistic of the p-values; ``chance`` is how often a distance at least that large
    would be seen if these images and the reference images were alike (the two-sample test on their bits, because the
    reference is a sample too).
    """

    images: int
    reference_images: int
    reference_mean: float
    distance: float
    chance: float
    flagged: int  # at p <= 0.05


def calibration(clean_bits: Tensor, reference_bits: Tensor) -> Calibration:
    """Compare clean test images with reference images, by their bits per dimension, (M,) and (N,) floats."""
    found = p_values(-clean_bits, -reference_bits)
    return Calibration(
        len(clean_bits),
        len(reference_bits),
        reference_bits.mean().item(),
        float(kstest(found.numpy(), "uniform").statistic),
        float(ks_2samp(clean_bits.numpy(), reference_bits.numpy()).pvalue),
        int((found <= 0.05).sum()),
    )


def calibration_table(rows: Mapping[str, Calibration]) -> str:
    """A Markdown table of calibrations, a row each."""
    lines = ["| reference images | n | bits per dimension | clean images | KS statistic | probability | flagged at 5&nbsp;% |",
             "|---|--:|:-:|--:|:-:|:-:|:-:|"]  # fmt: skip
    for title, row in rows.items():
        flagged = f"{100 * row.flagged / row.images:.1f}&nbsp;%<br>{percent_interval(row.flagged, row.images)}"
        chance = f"{row.chance:.2g}" if row.chance >= 1e-4 else "below 0.0001"
        lines.append(f"| {title} | {row.reference_images} | {row.reference_mean:.3f} | {row.images} "
                     f"| {row.distance:.3f} | {chance} | {flagged} |")  # fmt: skip
    return "\n".join(lines)


def mean_interval(values: Tensor) -> tuple[float, float, float]:
    """Mean of (N,) values and a 95 % interval for it from the normal approximation: (mean, low, high).

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"a mean needs at least two values to have an interval, not {len(values)}")
    mean, half = values.mean().item(), Z_95 * values.std().item() / math.sqrt(len(values))
    return mean, mean - half, mean + half


def p_value_table(groups: Mapping[str, Tensor]) -> str:
    """The panels of Figure 3 in numbers, as a Markdown table; ``groups`` maps a kind of image to its p-values."""
    lines = ["| images | n | mean p-value | median | at most 0.05, in % | KS statistic |", "|---|--:|:-:|:-:|:-:|:-:|"]
    for kind, values in groups.items():
        mean, low, high = mean_interval(values)
        few = int((values <= 0.05).sum())
        distance = kstest(values.numpy(), "uniform").statistic
        lines.append(
            f"| {label(kind)} | {len(values)} | **{mean:.3f}**<br>[{max(low, 0):.3f},&nbsp;{high:.3f}] "
            f"| {values.median():.4f} | {100 * few / len(values):.1f}<br>{percent_interval(few, len(values))} "
            f"| {distance:.3f} |"
        )
    return "\n".join(lines)


def holds(groups: Mapping[str, Tensor], lower: Sequence[str], higher: Sequence[str]) -> str:
    """Whether every mean p-value of ``lower`` lies below every one of ``higher``.

    "yes" if all their 95 % intervals are disjoint and in that order, "no" if some pair is disjoint and in the other one,
    else "undecided".
    """
    verdicts = set()
    for one in lower:
        for other in higher:
            (_, low, high), (_, other_low, other_high) = mean_interval(groups[one]), mean_interval(groups[other])
            verdicts.add("yes" if high < other_low else "no" if low > other_high else "undecided")
    return "no" if "no" in verdicts else "undecided" if "undecided" in verdicts else "yes"


def figure_3_claims(groups: Mapping[str, Tensor], clean: Calibration) -> dict[str, str]:
    """What Figure 3 of the paper shows, claim by claim, and whether it holds for these p-values (see `holds`).

    Args:
        groups: p-values of "clean" and each of the paper's attacks.
        clean: the calibration of the clean images; uniform unless the test rejects it at 5 %.
    """
    far = all(groups[kind].median() <= 0.05 for kind in LARGE)
    return {
        "clean p-values are uniform": "yes" if clean.chance >= 0.05 else "no",
        "RAND, FGSM, BIM below clean": holds(groups, LARGE, ["clean"]),
        "far below: more than half of each at most 0.05": "yes" if far else "no",
        "DeepFool below clean": holds(groups, ["deepfool"], ["clean"]),
        "CW below clean": holds(groups, ["carlini_wagner"], ["clean"]),
        "RAND, FGSM, BIM below DeepFool": holds(groups, LARGE, ["deepfool"]),
        "RAND, FGSM, BIM below CW": holds(groups, LARGE, ["carlini_wagner"]),
    }
