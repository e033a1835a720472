"""The reproduction report: all claims in the paper's order, and what was not run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from zlib import crc32

import torch

from ... import paths
from ...classifiers import saved_classifiers
from ...classifiers.store import SIZES as NETWORK_SIZES
from ...classifiers.store import build_classifier, classifier_name
from ...pixelcnn import shipped_densities
from ...weights import SCORES
from ..available import TITLES
from ..conditions import (
    DENSITIES,
    EPS_ATTACK,
    ROWS,
    UPPER_ROWS,
    Condition,
    Row,
    paper_accuracy,
)
from ..endtoend.attacks import SIZES, sizes_of
from ..lab import Lab
from ..purification.optimisation import SEARCHES
from ..records import Record
from . import accuracy, likelihood, search
from .judging import Claim, Judgement, judge, reading_lab

CLAIMS: dict[Claim, int] = {
    claim: number + 1
    for number, claim in enumerate((*likelihood.CLAIMS, *search.CLAIMS, *accuracy.CLAIMS))
}


def reading_labs(profile: str = "laptop", **options) -> dict[str, Lab]:
    """A `reading_lab` for each data set, whether it has a density or not; ``options`` as for `Lab`."""
    return {data_set: reading_lab(data_set, profile, **options) for data_set in EPS_ATTACK}


def judge_all(lab: Lab) -> list[Judgement]:
    """Every claim about the lab's data set, judged; beside it, which of the comparisons the paper's own numbers fail."""
    printed = {claim: found.failed for claim, found in judged_on_the_paper(lab.data_set).items()}
    return [replace(judge(claim, lab), beyond=printed.get(claim, ())) for claim in CLAIMS if lab.data_set in claim.data_sets]


def scored(labs: Mapping[str, Lab]) -> list[str]:
    """The data sets that have a density and the normally trained ResNet."""
    return [data_set for data_set, lab in labs.items() if lab.has_density and not lab.missing(ROWS[:1])]


def listed(judgements: Sequence[Judgement], numbers: Mapping[Claim, int]) -> str:
    """In a few sentences, in Markdown: what does not hold, is undecided, or holds in part, by number and text, with what is
    known of the reasons; and what was not run, by number."""
    lines = []
    for verdict in ("does not hold", "undecided", "holds in part"):
        found = [f"({numbers[of.claim]}) *{of.claim.text}* {of.why} {of.reasons}".rstrip()
                 for of in judgements if of.verdict == verdict]  # fmt: skip
        lines += [f"**{verdict.capitalize()}:**", "", *(f"- {text}" for text in found), ""] if found else []
    waiting = [str(numbers[of.claim]) for of in judgements if of.verdict == "not run"]
    lines += [f"**Not run:** {', '.join(waiting)}."] if waiting else []
    return "\n".join(lines) or "Every claim holds."


def rules_table(images: int = 10_000) -> str:
    """The rule of each claim, in Markdown, and what it makes of the accuracies that the paper prints, where it needs no
    others: a rule that the paper's own numbers break asks for more than was shown. ``images``: on which they rest."""
    printed = {data_set: judged_on_the_paper(data_set, images) for data_set in EPS_ATTACK}
    lines = ["| | claim | a comparison agrees with the paper if | the paper's own numbers |", "|--:|---|---|---|"]
    for claim, number in CLAIMS.items():
        own = [f"{TITLES[data_set]}: {of[claim].verdict}" for data_set, of in printed.items() if claim in of]
        lines.append(f"| {number} | {claim.text} | {claim.rule} | {'<br>'.join(own) or '-'} |")
    return "\n".join(lines)


def not_run_table(labs: Iterable[Lab]) -> str:
    """What the paper has and this book has not, with what is lacking, in Markdown; and what was run on fewer images."""
    lines = ["| what the paper has | why it is not here |", "|---|---|"]
    for lab in labs:
        title = TITLES[lab.data_set]
        lines += [f"| {title}: {what} | {why} |" for what, why in _lacking(lab)]
        if lab.profile.images and lab.missing().keys() != set(ROWS):
            lines.append(f"| {title}: all 10,000 test images | to save time: the first {lab.profile.images:,} are taken, "
                         f"and {lab.profile.dear_images:,} of them under DeepFool and CW |")  # fmt: skip
        lines += [f"| {title}: {what} | to save time: {less} |" for what, less in _on_less(lab)]
    return "\n".join(lines)


def _on_less(lab: Lab) -> list[tuple[str, str]]:
    """What needs the density and was run at a smaller size than the paper's."""
    if not lab.has_density:
        return []
    search, sizes, largest = SEARCHES[lab.profile_name], sizes_of(lab), SEARCHES["paper"]
    found = []
    if search.starts < largest.starts:
        found.append((f"figure 5, L-BFGS-B from {largest.starts} starts for each image", f"{search.starts}"))
    theirs = SIZES[lab.data_set]["paper"].bim_images
    if sizes.bim_images < theirs:
        found.append((f"section 4.4, BIM through the unrolled purification, {theirs} images", f"{sizes.bim_images}"))
    return found


def _lacking(lab: Lab) -> list[tuple[str, str]]:
    """Weights that do not exist, and the rows of the table that wait for them."""
    found = []
    if not lab.has_density:
        found.append(("everything that needs the density", f"none is shipped ({' or '.join(DENSITIES[lab.data_set])})"))
    elif lab.density_name != DENSITIES[lab.data_set][0]:
        best = DENSITIES[lab.data_set][0]
        why = f"{best} takes a GPU to run" if best in shipped_densities() else f"{best} was not trained, which takes a GPU"
        found.append(("a density of the paper's size", f"{why}; {lab.density_name} stands in for it"))
    for row in UPPER_ROWS:
        name = classifier_name(lab.data_set, row.network, row.training)
        if row.defence == "none" and name not in saved_classifiers():
            waiting = [f"*{r.title}*" for r in ROWS if (r.network, r.training) == (row.network, row.training)]
            found.append(("; ".join(waiting), f"the classifier {name} was not trained{_cost(row, lab)}"))
    return found


def _cost(row: Row, lab: Lab) -> str:
    """What training took for the other data set, where that was done here."""
    for other in NETWORK_SIZES:
        name = classifier_name(other[0], row.network, row.training)
        scores = paths.WEIGHTS / "classifiers" / name / SCORES
        if other[0] != lab.data_set and other[1] == row.network and scores.is_file():
            minutes = json.loads(scores.read_text())["training_seconds"] / 60
            ratio = _parameters(lab.data_set, row.network) / _parameters(*other)
            return (f"; that of {TITLES[other[0]]} took {minutes:.0f} minutes, and this one has {ratio:.0f} times as many "
                    "parameters")  # fmt: skip
    return ""


def _parameters(data_set: str, network: str) -> int:
    return sum(p.numel() for p in build_classifier(network, NETWORK_SIZES[data_set, network]).parameters())


class PrintedLab:
    """Stands in for a `reading_lab` whose records have the accuracies that the paper prints, on as many images.

    Which images are right the paper does not say: here chance decides, for each condition on its own. Real conditions have
    more images in common, which makes the same difference less likely by chance.
    """

    has_density = True

    def __init__(self, data_set: str, images: int = 10_000):
        self.data_set, self.images = data_set, images
        self.record = cache(self.record)

    def missing(self, rows: Iterable[Row] = ROWS) -> dict[Row, str]:
        return {}

    def record(self, condition: Condition) -> Record:
        eps = condition.eps or EPS_ATTACK[self.data_set][0]
        right = round(paper_accuracy(condition, eps=eps) / 100 * self.images)
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(crc32(condition.name.encode())))
        return Record({}, list(range(self.images)), [0] * self.images, (order >= right).int().tolist(), [])


def judged_on_the_paper(data_set: str, images: int = 10_000) -> dict[Claim, Judgement]:
    """What the rules for claims on accuracies make of the numbers that the paper itself prints."""
    lab = PrintedLab(data_set, images)
    return {claim: judge(claim, lab) for claim in accuracy.CLAIMS}
