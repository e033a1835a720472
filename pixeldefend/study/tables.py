"""Tables of the book: accuracies with intervals, beside the paper's numbers."""

import math
from collections.abc import Callable, Sequence

from .conditions import ATTACKS, EPS_ATTACK, NAMES, Condition, attacks_with_eps, paper_accuracy
from .records import Record


def wilson_interval(successes: int, trials: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for a proportion, 95 % by default: (low, high) in 0..1.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or not trials:
        raise ValueError(f"need 0 <= successes <= trials and trials > 0, not {successes} of {trials}")
    p, n = successes / trials, trials
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def percent_interval(successes: int, trials: int) -> str:
    """The 95 % interval in percent, rounded outward, in Markdown that does not break at its comma."""
    low, high = wilson_interval(successes, trials)
    return f"[{math.floor(100 * low)},&nbsp;{math.ceil(100 * high)}]"


def accuracy_cell(record: Record, paper: float | None) -> str:
    """One cell in Markdown: accuracy in percent with its 95 % interval, and the paper's number."""
    ours = f"**{100 * record.accuracy:.1f}**<br>{percent_interval(int(record.correct.sum()), len(record))}"
    return ours if paper is None else f"{ours}<br>paper&nbsp;{paper:.0f}"


def accuracy_table(rows: Sequence[tuple[str, Callable[[str, int], Condition]]], record: Callable[[Condition], Record],
                   data_set: str) -> str:
    """A part of Table 1 or 2 as a Markdown table, one column for each attack and eps.

    ``rows`` are titles with a function from (attack, eps) to the row's `Condition`; ``record`` gives a condition's record.
    """
    columns = attacks_with_eps(data_set)
    heads = ["clean"] + [f"{NAMES[attack]}, eps {eps}" for attack, eps in columns[1:]]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + ":-:|" * len(heads)]
    for title, condition_of in rows:
        cells = []
        for attack, eps in columns:
            condition = condition_of(attack, eps)
            paper = paper_accuracy(condition, eps=eps or EPS_ATTACK[data_set][0])
            cells.append(accuracy_cell(record(condition), paper))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def strongest(records: dict[str, Record]) -> tuple[str, float]:
    """The attack with the lowest accuracy, and that accuracy: the paper's last column, over the attacks given."""
    if not set(records) <= set(ATTACKS) or not records:
        raise ValueError(f"give records of the attacks {', '.join(ATTACKS)}")
    worst = min(records, key=lambda attack: records[attack].accuracy)
    return worst, records[worst].accuracy


def worst_case(records: dict[str, Record]) -> float:
    """Accuracy when each image meets the attack that fools its classifier, if any does: the stricter measure."""
    every = [record.correct for record in records.values()]
    return sum(all(bool(c[n]) for c in every) for n in range(len(every[0]))) / len(every[0])
