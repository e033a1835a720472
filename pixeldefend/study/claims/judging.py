"""The paper's claims, each judged by a rule from what is on disk, and the tables of the report.

A claim is a list of comparisons. It holds where all of them come out as the paper says, does not hold where none does, and
holds in part in between, also where a comparison could not be made for want of a record. It is undecided where none comes
out so, but all of them might with more images. Nothing is computed for the report: a claim without any record is "not run".

The claims themselves: `likelihood`, `accuracy` and `search`; `report` numbers them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from scipy.stats import binomtest
from torch import Tensor

from ..available import TITLES
from ..conditions import EPS_ATTACK, Row, paper_accuracy
from ..lab import Lab
from ..records import Record
from ..store import Store
from ..tables import percent_interval, wilson_interval

LISTED = 3  # of what is lacking
CHANCE = 0.05  # a p-value: from here on, chance explains a difference
SIGNS = {"holds": "\N{BLACK CIRCLE}", "holds in part": "\N{CIRCLE WITH LEFT HALF BLACK}",
         "undecided": "?", "does not hold": "\N{WHITE CIRCLE}", "not run": "\N{EN DASH}"}  # fmt: skip
VERDICTS = tuple(SIGNS)


class NotRun(LookupError):
    """What a comparison needs does not exist; the message names it."""


class Shelf(Store):
    """A store that only reads: what is not there, or was made with other settings, raises `NotRun`."""

    def record(self, path: Path, config: dict, evaluate: Callable) -> Record:
        return super().record(path, config, self._refusal(path))

    def measurement(self, path: Path, config: dict, measure: Callable) -> dict:
        return super().measurement(path, config, self._refusal(path))

    @staticmethod
    def _refusal(path: Path) -> Callable:
        def refuse():
            raise NotRun(f"the record `{path.stem}`")

        return refuse


def reading_lab(data_set: str, profile: str = "laptop", **options) -> Lab:
    """A lab that gives what earlier chapters left on disk, and computes nothing. Arguments as for `Lab`."""
    lab = Lab(data_set, profile, **options)
    lab.store = lab.lasting = Shelf(free=lab.store.free)
    lab.record = cache(lab.record)  # many claims look at the same ones
    return lab


@dataclass(frozen=True)
class Outcome:
    """One comparison: whether it came out as the paper says, our result in Markdown, and on how many images.

    ``undecided``: it did not pass, but what would pass lies within its 95 % interval; only where a comparison has one.
    """

    passed: bool
    ours: str
    images: int
    undecided: bool = False


Comparisons = Mapping[str, Callable[[], Outcome]]  # what is compared, in few words; may raise `NotRun`


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Args:
        section: of the paper, where it is made.
        text: in few words.
        rule: when a comparison counts as passed, for people.
        paper: the paper's numbers for a data set, in Markdown; an empty text where it gives none.
        comparisons: made from a lab's records.
        data_sets: the ones it is about.
        reasons: what is known, or suspected, of why a comparison fails by more than chance: {how its name begins: a
            sentence or two, in Markdown, without numbers of ours}.
    """

    section: str
    text: str
    rule: str
    paper: Callable[[str], str]
    comparisons: Callable[[Lab], Comparisons]
    data_sets: tuple[str, ...] = tuple(EPS_ATTACK)
    reasons: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Judgement:
    """What became of a claim on a data set.

    ``lacking``: what could not be compared, and what that lacks; ``beyond``: comparisons that the paper's own printed
    numbers fail as well.
    """

    claim: Claim
    data_set: str
    outcomes: Mapping[str, Outcome]
    lacking: Mapping[str, str]
    beyond: Collection[str] = ()

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        passed = [outcome.passed for outcome in self.outcomes.values()]
        if not passed:
            return "not run"
        if not any(passed):
            return "undecided" if all(outcome.undecided for outcome in self.outcomes.values()) else "does not hold"
        return "holds" if all(passed) and not self.lacking else "holds in part"

    @property
    def failed(self) -> list[str]:
        """The comparisons that do not agree with the paper."""
        return [what for what, outcome in self.outcomes.items() if not outcome.passed]

    @property
    def why(self) -> str:
        """One sentence or two: which comparisons do not agree with the paper, and which could not be made."""
        count, failed = len(self.outcomes), self.failed
        sentences = []
        if self.outcomes and not failed:
            sentences.append(_number(count, "comparison comes out as claimed.", "comparisons come out as claimed."))
        elif len(failed) == count and count:
            sentences.append(_number(count, "comparison, not as claimed.", "comparisons, none as claimed."))
        elif failed:
            sentences.append(f"{len(failed)} of {count} not as claimed: {'; '.join(failed)}.")
        if self.lacking:
            sentences.append(f"Lacking: {_abridged(list(dict.fromkeys(self.lacking.values())))}.")
        return " ".join(sentences)

    @property
    def reasons(self) -> str:
        """Why comparisons do not agree with the paper, as far as that is known, in Markdown; empty where nothing is."""
        failed = self.failed
        undecided = [what for what in failed if self.outcomes[what].undecided]
        beyond = [what for what in failed if what in self.beyond]
        found = [f"The paper's own numbers fail the rule{_only(beyond, failed)}, too."] if beyond else []
        found += [f"Too few images to decide{_only(undecided, failed)}."] if undecided else []
        clear = [what for what in failed if what not in undecided]
        matching = (reason for start, reason in self.claim.reasons.items() if any(w.startswith(start) for w in clear))
        return " ".join([*found, *dict.fromkeys(matching)])


def _only(some: Sequence[str], failed: Sequence[str]) -> str:
    """Which of those that failed are meant, unless it is all of them."""
    return "" if len(some) == len(failed) else f" ({'; '.join(some)})"


def _number(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _abridged(lacking: list[str]) -> str:
    return "; ".join(lacking if len(lacking) <= LISTED else [*lacking[:LISTED], f"{len(lacking) - LISTED} more"])


def judge(claim: Claim, lab: Lab) -> Judgement:
    """Make a claim's comparisons on the records of a lab; give one of `reading_lab`, so that nothing is computed.

    Raises ``ValueError`` for a claim that is not about the lab's data set, and where a record is damaged.
    """
    if lab.data_set not in claim.data_sets:
        raise ValueError(f"the claim {claim.text!r} is about {' and '.join(claim.data_sets)}, not {lab.data_set}")
    outcomes, lacking = {}, {}
    for what, compare in claim.comparisons(lab).items():
        try:
            outcomes[what] = compare()
        except NotRun as missing:
            lacking[what] = str(missing)
    return Judgement(claim, lab.data_set, outcomes, lacking)


# -- evidence: what comparisons are made of ---------------------------------------------------------------------------


def cell(lab: Lab, row: Row, attack: str = "clean", eps: int = 0) -> Record:
    """The record of a table's cell. Raises `NotRun` where it, its classifier or its density does not exist."""
    lacking = lab.missing([row])
    if lacking:
        raise NotRun(lacking[row])
    return lab.record(row.condition(lab.data_set, attack, eps))


def scored(lab: Lab, row: Row, attack: str = "clean", eps: int = 0) -> Record:
    """`cell`, with bits per dimension."""
    if not lab.has_density:
        raise NotRun(f"a density of {lab.data_set}")
    return cell(lab, row, attack, eps)


def reference(lab: Lab, split: str) -> Record:
    """The scores of the "train" or "held-out" images. Raises `NotRun` without a density."""
    if not lab.has_density:
        raise NotRun(f"a density of {lab.data_set}")
    return lab.reference(split)


def share(successes: int, trials: int) -> str:
    """A proportion in percent with its 95 % interval, in Markdown."""
    return f"{100 * successes / trials:.1f}&nbsp;% {percent_interval(successes, trials)}"


def accuracy(record: Record) -> str:
    return share(int(record.correct.sum()), len(record))


def interval(record: Record) -> tuple[float, float]:
    """Of the accuracy, in 0..1."""
    return wilson_interval(int(record.correct.sum()), len(record))


def most(happened: Tensor) -> Outcome:
    """Of N images, bool (N,), whether more than half did, with the whole 95 % interval: "mainly", "typically", "most"."""
    count, images = int(happened.sum()), len(happened)
    low, high = wilson_interval(count, images)
    return Outcome(low > 0.5, share(count, images), images, undecided=low <= 0.5 < high)


def shared(*records: Record) -> tuple[Record, ...]:
    """Records cut down to the images that all of them have, which are the first ones."""
    count = min(map(len, records))
    lists = ("index", "labels", "predictions", "bits_per_dim")
    return tuple(replace(record, **{name: getattr(record, name)[:count] for name in lists}) for record in records)


def mcnemar(only_one: int, only_other: int) -> float:
    """McNemar's exact test (McNemar, 1947; with the binomial distribution) of whether two conditions leave the same accuracy
    on the same images: the p-value, two-sided.

    ``only_one`` and ``only_other``: how many images are right under that condition and wrong under the other one.
    """
    return float(binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0


def is_higher(record: Record, other: Record, *, level: float = CHANCE) -> bool:
    """Whether the accuracy is higher than the other's by more than chance explains, on the images that both have: McNemar's
    exact test has a p-value below ``level``."""
    mine, theirs = (of.correct for of in shared(record, other))
    gained, lost = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    return gained > lost and mcnemar(gained, lost) < level


def printed(data_set: str, row: Row, attack: str = "clean", *, strongest: bool = False) -> str:
    """The paper's accuracies as it prints them, for all its eps, such as "38/24"."""
    conditions = {eps: row.condition(data_set, attack, 0 if attack == "clean" else eps) for eps in EPS_ATTACK[data_set]}
    found = [paper_accuracy(condition, eps=eps, strongest=strongest) for eps, condition in conditions.items()]
    return "/".join("-" if value is None else f"{value:.0f}" for value in found)


def cifar10_only(text: str) -> Callable[[str], str]:
    """What the paper gives for CIFAR-10 and not for Fashion-MNIST."""
    return lambda data_set: text if data_set == "cifar10" else ""


# -- tables -----------------------------------------------------------------------------------------------------------


def claims_table(judgements: Sequence[Judgement], numbers: Mapping[Claim, int]) -> str:
    """The claims of one data set, in Markdown: the paper's numbers, ours with their images, the verdict and why."""
    lines = ["| | section | claim | the paper | here | verdict | why |", "|--:|---|---|---|---|---|---|"]
    for found in judgements:
        claim = found.claim
        cells = [str(numbers[claim]), claim.section, claim.text, claim.paper(found.data_set) or "no number",
                 _ours(found.outcomes), f"**{found.verdict}**", found.why]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ours(outcomes: Mapping[str, Outcome]) -> str:
    lines = []
    for images in dict.fromkeys(outcome.images for outcome in outcomes.values()):
        lines += [f"{what}: {outcome.ours}" for what, outcome in outcomes.items() if outcome.images == images]
        lines.append(f"(n&nbsp;=&nbsp;{images:,})")
    return "<br>".join(lines) or "-"


def glance_table(judgements: Iterable[Judgement], numbers: Mapping[Claim, int]) -> str:
    """Every claim on one line, with its verdict on each data set, in Markdown."""
    found: dict[Claim, dict[str, str]] = {claim: {} for claim in numbers}
    for of in judgements:
        found[of.claim][of.data_set] = f"{SIGNS[of.verdict]}&nbsp;{of.verdict.replace(' ', '&nbsp;')}"
    heads = ["", "claim", "section", *(TITLES[data_set] for data_set in EPS_ATTACK)]
    lines = ["| " + " | ".join(heads) + " |", "|--:|---|---|" + "---|" * len(EPS_ATTACK)]
    for claim, verdicts in found.items():
        cells = [str(numbers[claim]), claim.text, claim.section, *(verdicts.get(data_set, "") for data_set in EPS_ATTACK)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts_table(judgements: Iterable[Judgement]) -> str:
    """How many claims of each data set met with which verdict, in Markdown."""
    counts = verdict_counts(judgements)
    lines = ["| | " + " | ".join(VERDICTS) + " |", "|---|" + "--:|" * len(VERDICTS)]
    for data_set, of in counts.items():
        lines.append(f"| {TITLES[data_set]} | " + " | ".join(str(of[verdict]) for verdict in VERDICTS) + " |")
    return "\n".join(lines)


def verdict_counts(judgements: Iterable[Judgement]) -> dict[str, dict[str, int]]:
    """{data set: {verdict: number of claims}}."""
    counts: dict[str, dict[str, int]] = {}
    for found in judgements:
        counts.setdefault(found.data_set, dict.fromkeys(VERDICTS, 0))[found.verdict] += 1
    return counts
