"""Tables of the book: accuracies with intervals, beside the paper's numbers."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from ..detection import Z_95
from .conditions import (
    ATTACKS,
    EPS_ATTACK,
    NAMES,
    SEARCHED,
    TUNED,
    Condition,
    Row,
    attacks_with_eps,
    paper_accuracy,
)
from .records import Record

MANY = 5_000  # images, of which an interval is one to three points wide


def wilson_interval(successes: int, trials: int, *, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a proportion, 95 % by default: (low, high) in 0..1.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or not trials:
        raise ValueError(f"need 0 <= successes <= trials and trials > 0, not {successes} of {trials}")
    p, n = successes / trials, trials
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # rounding must not leave p outside


def percent_interval(successes: int, trials: int) -> str:
    """The 95 % interval in percent, rounded outward, to tenths from `MANY` trials on, in Markdown that does not break at
    its comma."""
    low, high = wilson_interval(successes, trials)
    digits = 1 if trials >= MANY else 0
    low, high = math.floor(100 * low * 10**digits) / 10**digits, math.ceil(100 * high * 10**digits) / 10**digits
    return f"[{low:.{digits}f},&nbsp;{high:.{digits}f}]"


def accuracy_cell(record: Record, paper: float | None, *, note: str = "", count: bool = False) -> str:
    """One cell in Markdown: accuracy in percent with its 95 % interval, and the paper's number with ours less the paper's.

    ``note`` follows the accuracy; ``count`` adds the number of images.
    """
    lines = [f"**{100 * record.accuracy:.1f}**{note}", percent_interval(int(record.correct.sum()), len(record))]
    lines += [f"n&nbsp;=&nbsp;{len(record)}"] if count else []
    lines += [f"paper&nbsp;{paper:.0f} ({_signed(100 * record.accuracy - paper)})"] if paper is not None else []
    return "<br>".join(lines)


def _signed(points: float) -> str:
    """A difference in percentage points, as accuracies are printed, with a sign unless it is zero."""
    rounded = round(points, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0"


def accuracy_table(rows: Sequence[Row], record: Callable[[Condition], Record], data_set: str, *, eps: int,
                   attacks: Sequence[str] = ATTACKS) -> str:  # fmt: skip
    """Table 1 or 2 at one eps, as a Markdown table with the paper's columns; beside each number, the paper's.

    After the paper's attacks comes the strongest of them, the lowest accuracy of the row and the attack it belongs to;
    after that, attacks that the paper does not have. The number of images stands in a column's head where all cells have
    the same, otherwise in the cells.

    Args:
        rows: see `conditions.ROWS`.
        record: gives a condition's record, such as `Lab.record`.
        attacks: the columns beside "clean", at least one of the paper's.
    """
    papers = [attack for attack in ATTACKS if attack in attacks]
    columns = ["clean", *papers, "strongest", *(attack for attack in attacks if attack not in ATTACKS)]
    grid = [_accuracies(row, record, data_set, eps, columns) for row in rows]
    counts = {column: {len(cells[column][0]) for cells in grid} for column in columns}
    heads = [_head(column, counts[column]) for column in columns]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + ":-:|" * len(heads)]
    for row, cells in zip(rows, grid, strict=True):
        written = [
            accuracy_cell(found, paper, note=note, count=len(counts[column]) > 1)
            for column, (found, paper, note) in cells.items()
        ]
        lines.append(f"| {row.title} | " + " | ".join(written) + " |")
    return "\n".join(lines)


def table_block(title: str, table: str, *, name: str) -> str:
    """A Markdown table as a numbered one of the book, with a caption: to be glued whole, with `:format: myst`."""
    return f":::{{table}} {title}\n:name: {name}\n\n{table}\n:::"


def table_parts(lab, rows: Sequence[Row], *, title: str, name: str, attacks: Sequence[str] = ATTACKS) -> str:
    """`accuracy_table` at every eps of the paper, as numbered tables, or nothing where there are no rows.

    Args:
        lab: a `Lab`.
        title: of the captions, before the eps.
        name: of the tables, before the eps.
    """
    parts = []
    for eps in EPS_ATTACK[lab.data_set] if rows else ():
        table = accuracy_table(rows, lab.record, lab.data_set, eps=eps, attacks=attacks)
        parts.append(table_block(f"{title}, attacks with $\\epsilon = {eps}$.", table, name=f"{name}-{eps}"))
    return "\n\n".join(parts)


def strongest_table(cells: Mapping[tuple, Record], rows: Sequence[Row], data_set: str) -> str:
    """The paper's strongest attack and the worst attack for each image, at every eps: a Markdown table with the paper's.

    ``cells`` are those of `Lab.cells` for the paper's attacks. An interval is Wilson's, 95 %. Below the worst attack for
    each image stands what the strongest one alone leaves of the same images, which are the first ones.
    """
    every = EPS_ATTACK[data_set]
    heads = [f"{kind}, eps {eps}" for eps in every for kind in ("strongest attack", "worst per image")]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + ":-:|" * len(heads)]
    for row in rows:
        written = []
        for eps in every:
            each = {attack: cells[row, attack, eps] for attack in ATTACKS}
            worst, _ = strongest(each)
            paper = paper_accuracy(row.condition(data_set, worst, eps), eps=eps, strongest=True)
            written.append(accuracy_cell(each[worst], paper, note=f"<br>{NAMES[worst]}", count=True))
            trials = min(map(len, each.values()))
            left = round(worst_case(each) * trials)
            first = {attack: record.correct[:trials] for attack, record in each.items()}
            alone = 100 * min(right.double().mean().item() for right in first.values())
            written.append(f"**{100 * left / trials:.1f}**<br>{percent_interval(left, trials)}<br>n&nbsp;=&nbsp;{trials}"
                           f"<br>one attack: {alone:.1f}")  # fmt: skip
        lines.append(f"| {row.title} | " + " | ".join(written) + " |")
    return "\n".join(lines)


def all_images_table(rows: Sequence[Row], stored: Callable[[Condition], Record | None],
                     record: Callable[[Condition], Record], data_set: str) -> str:  # fmt: skip
    """The cells for which there is a record of all test images, beside the same of fewer: a Markdown table, or "" for none.

    ``stored`` and ``record`` give a condition's record of all images, if there is one, and of fewer: `Lab.stored` of a lab
    at the paper's scale, and `Lab.record`.
    """
    lines = []
    for row in rows:
        for attack, eps in attacks_with_eps(data_set):
            condition = row.condition(data_set, attack, eps)
            every = stored(condition)
            few = record(condition) if every else None
            if few is None or len(every) <= len(few):  # a trial of that profile
                continue
            if every.config.get("density") != few.config.get("density"):  # a larger one's: nothing to compare
                continue
            paper = paper_accuracy(condition, eps=eps or EPS_ATTACK[data_set][0])
            name = NAMES[attack] + (f", eps {eps}" if eps else "")
            lines.append(f"| {row.title} | {name} | {accuracy_cell(every, paper, count=True)} "
                         f"| {accuracy_cell(few, None, count=True)} |")  # fmt: skip
    return "\n".join(["| | attack | all test images | the tables above |", "|---|---|:-:|:-:|", *lines]) if lines else ""


def _accuracies(row: Row, record: Callable[[Condition], Record], data_set: str, eps: int,
                columns: Sequence[str]) -> dict[str, tuple[Record, float | None, str]]:  # fmt: skip
    """A row's columns: record, the paper's accuracy and a note."""
    conditions = {c: row.condition(data_set, c, 0 if c == "clean" else eps) for c in columns if c != "strongest"}
    records = {column: record(condition) for column, condition in conditions.items()}
    worst, _ = strongest({attack: records[attack] for attack in ATTACKS if attack in records})
    cells = {}
    for column in columns:
        if column == "strongest":
            cells[column] = records[worst], paper_accuracy(conditions[worst], eps=eps, strongest=True), f"<br>{NAMES[worst]}"
        else:
            cells[column] = records[column], paper_accuracy(conditions[column], eps=eps), ""
    return cells


def _head(column: str, counts: set[int]) -> str:
    title = NAMES.get(column, column)
    return f"{title}<br>n&nbsp;=&nbsp;{counts.pop()}" if len(counts) == 1 else title


def tuned_table(record: Callable[[Condition], Record], without: Row, purified: Row, data_set: str) -> str:
    """What the tuned CW leaves of a classifier, ``without`` a defence and ``purified``, in Markdown with Wilson intervals;
    beside it, of the same images purified, those that are clean and those after BIM."""
    heads = ["eps", "n", "CW, tuned,<br>no defence", "CW, tuned,<br>PixelDefend", "clean,<br>PixelDefend",
             "BIM,<br>PixelDefend"]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|--:|--:|" + ":-:|" * (len(heads) - 2)]
    for eps in EPS_ATTACK[data_set]:
        columns = [(without, TUNED, eps), (purified, TUNED, eps), (purified, "clean", 0), (purified, "bim", eps)]
        found = [record(row.condition(data_set, attack, size)) for row, attack, size in columns]
        count = min(map(len, found))
        right = [int(of.correct[:count].sum()) for of in found]
        cells = [f"**{100 * k / count:.1f}**<br>{percent_interval(k, count)}" for k in right]
        lines.append(f"| {eps} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rounding_table(record: Callable[[Condition], Record], data_set: str, *, network: str = "resnet",
                   training: str = "normal") -> str:  # fmt: skip
    """What rounding to colour levels alone does against the attacks that find floats: a Markdown table.

    Accuracy of an undefended classifier on the floats (what the authors evaluate, hence the paper's number beside it), on
    the nearest levels, and on levels rounded away from the original, which is how attacks are evaluated elsewhere here.
    """
    roundings = {"none": "floats", "nearest": "rounded to nearest", "outward": "rounded outward"}
    lines = ["| attack | n | " + " | ".join(roundings.values()) + " |", "|---|--:|" + ":-:|" * len(roundings)]
    for attack in SEARCHED:
        for eps in EPS_ATTACK[data_set]:
            cells = []
            for rounding in roundings:
                condition = Condition(data_set, attack, eps, network=network, training=training, rounding=rounding)
                found = record(condition)
                cells.append(accuracy_cell(found, paper_accuracy(condition, eps=eps) if rounding == "none" else None))
            lines.append(f"| {NAMES[attack]}, eps {eps} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def strongest(records: Mapping[str, Record]) -> tuple[str, float]:
    """The attack with the lowest accuracy, each on all its own images, and that accuracy: the paper's last column."""
    if not set(records) <= set(ATTACKS) or not records:
        raise ValueError(f"give records of the attacks {', '.join(ATTACKS)}")
    worst = min(records, key=lambda attack: records[attack].accuracy)
    return worst, records[worst].accuracy


def worst_case(records: Mapping[str, Record]) -> float:
    """Accuracy when each image meets the attack that fools its classifier, if any does: the stricter measure.

    Over the images that all records have, which are the first ones.
    """
    count = min(len(record) for record in records.values())
    every = [record.correct[:count] for record in records.values()]
    return torch.stack(every).all(dim=0).double().mean().item()
