"""Tables on `attacks`, in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean

import torch
from torch import Tensor

from ...detection import p_values
from ..available import TITLES
from ..conditions import EPS_ATTACK, EPS_DEFEND, Condition, paper_accuracy
from ..tables import percent_interval
from .attacks import BIM_EPS, Sizes

LEVEL = 0.05  # of the test for adversarial images
CALLED = {"clean": "none", "bim": "BIM, unaware of the defence", "bpda": "BPDA"}


@dataclass(frozen=True)
class Outcome:
    """What an attack left of the defended classifier, in numbers of images, and what the detector would have seen.

    ``right`` after purification; ``flagged``: p-value of the image before purification at most `LEVEL`; ``broken``: wrong,
    but right without the attack; ``unseen``: broken and not flagged. ``bits`` is the mean before purification.
    """

    images: int
    right: int
    flagged: int
    broken: int
    unseen: int
    bits: float

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.right / self.images


def outcomes(results: Mapping, reference: Tensor) -> dict[tuple[str, int], Outcome]:
    """By attack ("clean", "bim", "bpda") and eps, from what `attacks.around_purification` measured.

    ``reference``: bits per dimension of images held out from the density's training, (N,).
    """
    cells = {("clean", 0): results["clean"]}
    cells |= {(attack, int(eps)): cell for eps, pair in results["attacks"].items() for attack, cell in pair.items()}
    before = right(results["clean"], results["labels"])
    found = {}
    for key, cell in cells.items():
        now = right(cell, results["labels"])
        flagged = p_values(-torch.tensor(cell["bits"], dtype=torch.float64), -reference) <= LEVEL
        counts = [int(chosen.sum()) for chosen in (now, flagged, before & ~now, before & ~now & ~flagged)]
        found[key] = Outcome(len(now), *counts, fmean(cell["bits"]))
    return found


def right(cell: Mapping, labels: Sequence[int]) -> Tensor:
    """Which of the predictions are the labels, bool (N,); of the first images only, where one list is the shorter."""
    count = min(len(cell["predictions"]), len(labels))
    return torch.tensor(cell["predictions"][:count]) == torch.tensor(labels[:count])


def fooled_by_one(results: Mapping, controls: Mapping, eps: int) -> tuple[int, int]:
    """Of the images, how many only BPDA made wrong after purification, and how many only BIM with as many steps.

    ``results`` and ``controls``: what `attacks.around_purification` and `controls.controls` returned.
    """
    cells = results["attacks"][str(eps)]["bpda"], controls["bim"][str(eps)]
    aware, unaware = (right(cell, results["labels"]) for cell in cells)
    return int((unaware & ~aware).sum()), int((aware & ~unaware).sum())


def outcome_table(found: Mapping[tuple[str, int], Outcome], data_set: str) -> str:
    """A row for each attack and eps, in the order clean, then by eps; with the paper's numbers for PixelDefend."""
    heads = ["attack", "eps", "n", "accuracy in %", "the paper", "bits per<br>dimension", "flagged in %", "made<br>wrong",
             "of these<br>not flagged"]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---|--:|--:|:-:|:-:|:-:|:-:|:-:|:-:|"]
    for (attack, eps), cell in sorted(found.items(), key=lambda item: item[0][1]):
        paper = None if attack == "bpda" else paper_of(data_set, attack, eps)
        cells = [CALLED[attack], str(eps or ""), str(cell.images), _share(cell.right, cell.images)]
        cells += ["" if paper is None else f"{paper:.0f}", f"{cell.bits:.2f}", _share(cell.flagged, cell.images)]
        cells += [str(cell.broken), str(cell.unseen)] if eps else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paper_of(data_set: str, attack: str, eps: int) -> float | None:
    """The paper's accuracy in percent of the ResNet behind PixelDefend; of clean images in the first column."""
    condition = Condition(data_set, attack, eps, "pixeldefend", EPS_DEFEND[data_set])
    return paper_accuracy(condition, eps=eps or EPS_ATTACK[data_set][0])


def _share(count: int, images: int) -> str:
    return f"**{100 * count / images:.1f}**<br>{percent_interval(count, images)}"


def flow_table(flow: Sequence[Mapping]) -> str:
    """What `attacks.measure_flow` found, a row for each temperature; ranges are over the images."""
    heads = ["temperature", "n", "levels from<br>greedy", "size after / before", "images with<br>no gradient",
             "sub-pixels with<br>gradient 0, in %", "of the others: sign as<br>behind purification, in %"]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|--:|--:|:-:|:-:|:-:|:-:|:-:|"]
    for row in flow:
        ratios = [after / before for after, before in zip(row["outgoing"], row["incoming"], strict=True)]
        cells = [f"{row['temperature']:g}", str(len(ratios)), f"{fmean(row['from_greedy']):.2f}"]
        cells += [f"{min(ratios):.2g} to {max(ratios):.2g}", f"{standing_still(row)} of {len(ratios)}"]
        cells += [f"{100 * fmean(row['zero_share']):.1f}", f"{agreement(row):.0f}".replace("nan", "")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def standing_still(row: Mapping) -> int:
    """Images whose gradient is 0 in every sub-pixel. BIM, which follows its sign, returns them as they were."""
    return sum(share == 1 for share in row["zero_share"])


def agreement(row: Mapping) -> float:
    """Of the sub-pixels whose gradient is not 0, the percentage with the sign that it had behind purification; NaN if none.

    A guess would have 50.
    """
    alive = sum(1 - share for share in row["zero_share"])
    return 100 * sum(row["same_sign"]) / alive if alive else nan


def through_table(through: Mapping[str, Mapping], around: Mapping[str, Mapping], sizes: Mapping[str, Sizes]) -> str:
    """What BIM through the softened purification did, a row for each data set; on whole images with BPDA beside it.

    ``through`` and ``around``: by data set, what the functions of `attacks` returned with these ``sizes``. Right and loss
    are those of the classifier behind greedy purification; parts of images have its first answer as their label.
    """
    heads = ["images", "n", "returned<br>unchanged", "right<br>before", "right after<br>BIM", "right after<br>BPDA",
             "mean loss<br>before", "after<br>BIM", "after<br>BPDA"]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    for data_set, results in through.items():
        side, changes = sizes[data_set].side, results["bim"]["largest_change"]
        count = len(changes)
        compared = [results["clean"], results["bim"], around[data_set]["attacks"][str(BIM_EPS)]["bpda"]]
        rights = [str(int(right(cell, results["labels"])[:count].sum())) for cell in compared]
        losses = [f"{fmean(cell['loss'][:count]):.3g}" for cell in compared]
        if side is not None:  # BPDA had other images
            rights[-1] = losses[-1] = ""
        title = TITLES[data_set] + ("" if side is None else f", the middle {side} x {side} pixels")
        cells = [title, str(count), str(changes.count(0)), *rights, *losses]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def claims_table(found: Mapping[str, Mapping[tuple[str, int], Outcome]]) -> str:
    """Who found what with attacks that know the defence: the authors, those who broke it, and this book.

    ``found``: by data set, what `outcomes` returned. The first two rows are quotations.
    """
    heads = ["source", "data set", "attack on classifier and PixelDefend", "eps", "n", "accuracy in %"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|:-:|:-:|:-:|"]
    lines.append('| Song et al. (2018) | not said | BIM, unrolled purification | not said | 100 | "failed to fool" |')
    lines.append("| Athalye et al. (2018) | CIFAR-10 | BPDA | 8 | | **9** |")
    for data_set, cells in found.items():
        for (attack, eps), cell in cells.items():
            if attack == "bpda":
                share = _share(cell.right, cell.images)
                lines.append(f"| this book | {TITLES[data_set]} | BPDA | {eps} | {cell.images} | {share} |")
    return "\n".join(lines)


def controls_table(controls: Mapping[str, Mapping], around: Mapping[str, Mapping], sizes: Mapping[str, Sizes]) -> str:
    """Accuracy behind purification by data set and eps, in Markdown with 95 % Wilson intervals: after BIM, after BIM with as
    many steps as BPDA, after BPDA, and after BPDA without a limit.

    ``controls`` and ``around``: by data set, what the functions of these names returned with these ``sizes``.
    """
    heads = ["", "eps", "n", "BIM, unaware,<br>steps as in the paper", "BIM, unaware,<br>steps as BPDA", "BPDA"]
    lines = ["| " + " | ".join(heads) + " |", "|---|:-:|--:|" + ":-:|" * (len(heads) - 3)]
    for data_set, results in controls.items():
        labels, title = results["labels"], f"{TITLES[data_set]}, at most {sizes[data_set].steps} steps"
        rows = {eps: [of["bim"], results["bim"][eps], of["bpda"]] for eps, of in around[data_set]["attacks"].items()}
        for eps, cells in (rows | {"no limit": [None, None, results["unlimited"]]}).items():
            shares = [_share(int(right(of, labels).sum()), len(labels)) if of else "" for of in cells]
            lines.append("| " + " | ".join([title, eps, str(len(labels)), *shares]) + " |")
    return "\n".join(lines)


def broken_summary(results: Mapping, controls: Mapping, found: Mapping[tuple[str, int], Outcome], data_set: str) -> str:
    """A Markdown list, an item for each eps: what BPDA leaves, and what BIM does that does not know of the defence; results
    and controls as for `fooled_by_one`."""
    items = []
    for (attack, eps), cell in found.items():
        if attack == "bpda":
            aware, unaware = fooled_by_one(results, controls, eps)
            longer = 100 * int(right(controls["bim"][str(eps)], results["labels"]).sum()) / cell.images
            items.append(
                f"- {TITLES[data_set]}, $\\epsilon = {eps}$: BIM leaves {found['bim', eps].accuracy:.1f} % of {cell.images} "
                f"images right after purification, with as many steps as BPDA {longer:.1f} %, and BPDA "
                f"{cell.accuracy:.1f} %. Of the same images, {aware} are wrong after BPDA only, {unaware} after BIM with as "
                "many steps only."
            )
    return "\n".join(items)
