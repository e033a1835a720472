"""Tables on likelihoods and detection: bits and errors, calibration, what Figure 3 claims, ROC curves in numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import ks_2samp, kstest
from torch import Tensor

from ...detection import Z_95, auc_interval, p_values, roc
from ..conditions import Condition, paper_accuracy
from ..figures import label
from ..records import Record
from ..tables import percent_interval

LEVELS = (0.01, 0.05)  # of the test
NEARLY = 0.05  # uniform: the largest Kolmogorov-Smirnov distance for which p-values count as such
LARGE = ("rand", "fgsm", "bim")  # "attacks producing larger perturbations" (section 3)


def likelihood_table(records: Mapping[str, Record], data_set: str) -> str:
    """Figure 2 in numbers, as a Markdown table: mean bits per dimension and test error, with 95 % intervals.

    ``records`` go from a kind of image to its record, with bits; all attacked ones have the same eps.
    """
    column = max(record.config["eps"] for record in records.values())
    lines = ["| images | n | bits per dimension | test error in % | paper's error |", "|---|--:|:-:|:-:|--:|"]
    for kind, record in records.items():
        mean, low, high = mean_interval(record.bits)
        wrong = len(record) - int(record.correct.sum())
        paper = paper_accuracy(Condition(data_set, kind, record.config["eps"]), eps=column)
        lines.append(
            f"| {label(kind)} | {len(record)} | **{mean:.2f}**<br>[{low:.2f},&nbsp;{high:.2f}] "
            f"| **{100 * wrong / len(record):.1f}**<br>{percent_interval(wrong, len(record))} "
            f"| {'' if paper is None else f'{100 - paper:.0f}'} |"
        )
    return "\n".join(lines)


def in_order(groups: Mapping[str, Tensor]) -> str:
    """The kinds of image from the lowest mean to the highest, with the means."""
    means = {kind: values.mean().item() for kind, values in groups.items()}
    return ", ".join(f"{label(kind)} {means[kind]:.2f}" for kind in sorted(means, key=means.get))


def paired(clean: Tensor, attacked: Tensor) -> Tensor:
    """The clean ones of scores of the same test images; dear attacks were given only the first of them.

    Those need not be as likely as all of them, so that no others should be the negatives.
    """
    return clean[: len(attacked)]


def fooled(records: Mapping[str, Record], attack: str) -> Tensor:
    """Which images an attack makes the classifier get wrong, bool (N,): right when "clean", wrong after it."""
    attacked = records[attack].correct
    return paired(records["clean"].correct, attacked) & ~attacked


def auc_cell(clean: Tensor, adversarial: Tensor) -> str:
    """Area under the ROC curve with its 95 % interval, rounded outward, in Markdown; scores as for `detection.roc`."""
    low, high = auc_interval(clean, adversarial)
    bounds = f"[{math.floor(1000 * low) / 1000:.3f},&nbsp;{math.ceil(1000 * high) / 1000:.3f}]"
    return f"**{roc(clean, adversarial).auc:.3f}**<br>{bounds}"


def flagged_cell(clean: Tensor, adversarial: Tensor, *, level: float) -> str:
    """Percent of adversarial images with a p-value of at most ``level``, with its 95 % Wilson interval, and percent of the
    clean ones, in Markdown.

    The reference images set the rate of false alarms. A threshold at the few lowest of the clean *test* images would be
    another one for every choice of these, and no interval would show it.
    """
    found, alarms = int((adversarial <= level).sum()), 100 * (clean <= level).double().mean().item()
    share = f"**{100 * found / len(adversarial):.1f}**<br>{percent_interval(found, len(adversarial))}"
    return f"{share}<br>clean&nbsp;{alarms:.1f}"


def detection_table(positives: Mapping[str, Tensor], negatives: Mapping[str, Tensor], *,
                    levels: Sequence[float] = LEVELS,
                    paper: tuple[Mapping[str, Tensor], Tensor] | None = None) -> str:  # fmt: skip
    """ROC curves in numbers, as a Markdown table: a row for each kind of image, with its number of images.

    Kinds with fewer than two images are left out: nothing can be said of them.

    Args:
        positives: p-values of the images to be found; a key is the row's title, or one of `conditions.NAMES`.
        negatives: p-values of clean images, with the same keys: see `paired`.
        levels: of the test, that is, rates of false positives; each is a column with the share of positives found.
        paper: positives (with the same keys) and negatives as the paper takes them; a last column with that AUC.
    """
    heads = ["images", "n", "negatives", "AUC"]
    heads += [f"found in %, p&nbsp;≤&nbsp;{level:g}" for level in levels]
    heads += ["AUC, negatives as in the paper"] if paper else []
    lines = ["| " + " | ".join(heads) + " |", "|---|--:|--:|" + ":-:|" * (len(heads) - 3)]
    for title, values in positives.items():
        if len(values) < 2:
            continue
        clean = negatives[title]
        cells = [label(title), f"{len(values)}", f"{len(clean)}", auc_cell(clean, values)]
        cells += [flagged_cell(clean, values, level=level) for level in levels]
        cells += [auc_cell(paper[1], paper[0][title])] if paper else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def stacked(tables: Mapping[str, str]) -> str:
    """Markdown tables with the same columns as one; before the rows of each, its title in bold.

    Raises:
        ValueError: no table, or heads that differ.
    """
    parts = {title: table.splitlines() for title, table in tables.items()}
    heads = {tuple(lines[:2]) for lines in parts.values()}
    if len(heads) != 1:
        raise ValueError(f"need tables with the same columns, not {len(heads)} different heads")
    columns = next(iter(heads))[1].count("|") - 1
    rows = [[f"| **{title}** " + "| " * (columns - 1) + "|", *lines[2:]] for title, lines in parts.items()]
    return "\n".join([*next(iter(heads)), *(line for part in rows for line in part)])


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
    heads = ["reference images", "n", "bits per dimension", "clean images", "KS statistic", "chance", "flagged at 5&nbsp;%"]
    lines = ["| " + " | ".join(heads) + " |", "|---|--:|:-:|--:|:-:|:-:|:-:|"]
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


def p_value_table(groups: Mapping[str, Tensor], *, paper: Mapping[str, Tensor] | None = None) -> str:
    """The panels of Figure 3 in numbers, as a Markdown table; ``groups`` maps a kind of image to its p-values.

    ``paper`` are those against training images, as the paper has them; their means are a last column.
    """
    heads = ["images", "n", "mean p-value", "median", "at most 0.05, in %", "KS statistic"]
    heads += ["mean, as in the paper"] if paper else []
    lines = ["| " + " | ".join(heads) + " |", "|---|--:|" + ":-:|" * (len(heads) - 2)]
    for kind, values in groups.items():
        few = int((values <= 0.05).sum())
        cells = [label(kind), f"{len(values)}", _mean_cell(values), f"{values.median():.4f}"]
        cells += [f"{100 * few / len(values):.1f}<br>{percent_interval(few, len(values))}"]
        cells += [f"{kstest(values.numpy(), 'uniform').statistic:.3f}"]
        cells += [_mean_cell(paper[kind])] if paper else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean_cell(values: Tensor) -> str:
    mean, low, high = mean_interval(values)
    return f"**{mean:.3f}**<br>[{max(low, 0):.3f},&nbsp;{high:.3f}]"


def holds(groups: Mapping[str, Tensor], lower: Sequence[str], higher: Sequence[str]) -> str:
    """Whether every mean p-value of ``lower`` lies below every one of ``higher``.

    Two kinds are compared image by image, on the images that both have, the first ones. "yes" if the 95 % interval of the
    mean difference lies below zero for every pair, "no" if it lies above zero for some pair, else "undecided".
    """
    verdicts = set()
    for one in lower:
        for other in higher:
            values, others = paired(groups[one], groups[other]), paired(groups[other], groups[one])
            _, low, high = mean_interval(values - others)
            verdicts.add("yes" if high < 0 else "no" if low > 0 else "undecided")
    return "no" if "no" in verdicts else "undecided" if "undecided" in verdicts else "yes"


def figure_3_claims(groups: Mapping[str, Tensor], clean: Calibration) -> dict[str, str]:
    """What Figure 3 of the paper shows, claim by claim, and whether it holds for these p-values (see `holds`).

    Args:
        groups: p-values of "clean" and each of the paper's attacks.
        clean: the calibration of the clean images; nearly uniform if they come as close as `NEARLY`.
    """
    far = all(groups[kind].median() <= 0.05 for kind in LARGE)
    return {
        f"clean p-values: at most {NEARLY} from uniform": "yes" if clean.distance <= NEARLY else "no",
        "RAND, FGSM, BIM below clean": holds(groups, LARGE, ["clean"]),
        "far below: more than half of each at most 0.05": "yes" if far else "no",
        "DeepFool below clean": holds(groups, ["deepfool"], ["clean"]),
        "CW below clean": holds(groups, ["carlini_wagner"], ["clean"]),
        "RAND, FGSM, BIM below DeepFool": holds(groups, LARGE, ["deepfool"]),
        "RAND, FGSM, BIM below CW": holds(groups, LARGE, ["carlini_wagner"]),
    }


def claims_table(sets: Mapping[str, Mapping[str, str]]) -> str:
    """A Markdown table of `figure_3_claims`, a column for each data set; its title is the key."""
    lines = ["| | " + " | ".join(sets) + " |", "|---|" + ":-:|" * len(sets)]
    for claim in next(iter(sets.values())):
        lines.append(f"| {claim} | " + " | ".join(claims[claim] for claims in sets.values()) + " |")
    return "\n".join(lines)


def claims_summary(claims: Mapping[str, str]) -> str:
    """How many claims of `figure_3_claims` hold, and which do not."""
    failed = [f"{claim} ({verdict})" for claim, verdict in claims.items() if verdict != "yes"]
    text = f"{len(claims) - len(failed)} of {len(claims)} hold"
    return text + (f", not: {'; '.join(failed)}." if failed else ".")
