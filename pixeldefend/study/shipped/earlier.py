"""What a better density is worth: the same attacked images, purified with densities of different quality.

A density that was trained on replaces its earlier weights, which then are in the repository's history alone. What they made
of the images is kept here, in ``data/records/earlier``, a folder for each with its scores and with records like any others.
A build reads them and never makes them again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ... import paths
from ...weights import BEFORE, read_scores
from ..available import TITLES
from ..claims.judging import shared
from ..claims.likelihood import PAPER_BITS
from ..conditions import EPS_ATTACK, LOWER_ROWS, NAMES, Condition, paper_accuracy
from ..detection.tables import mean_interval
from ..lab import Lab
from ..records import Record, load_record, read_signed, write_signed
from ..tables import accuracy_cell

ATTACK = "bim"  # the strongest of the paper's
FOLDER = paths.RECORDS / "earlier"
KEPT = "density.json"  # after the data set's name: what is kept of the weights' scores
COLOURS = ("#000000", "#E69F00", "#D55E00", "#CC79A7")  # clean, then by eps


@dataclass(frozen=True)
class State:
    """A density at one time of its training: its bits per dimension over the test images, the training images it had seen,
    and, by the attack's eps (0: not attacked), what the ResNet makes of the images that it purified."""

    bits: float
    images_seen: int
    records: Mapping[int, Record]


def keep(weights: Path, data_set: str, *, profile: str = "laptop", folder: Path = FOLDER, **options) -> Path:
    """Purify with the weights in a folder, and write the records and the weights' scores to a folder of their own, which is
    returned: to be done with weights that are going to be replaced. ``options`` as for `Lab`.

    Raises ``FileNotFoundError`` and ``ValueError`` as `PixelCNN.from_pretrained`, and for weights without scores.
    """
    scores = read_scores(Path(weights))
    lab = Lab(data_set, profile, density=str(weights), **options)
    own = folder / f"{data_set}-{lab.density_fingerprint[:8]}"
    lab = Lab(data_set, profile, density=str(weights), records=own, **options)
    for condition in _conditions(lab).values():
        lab.record(condition)
    kept = {"test_bits_per_dim": scores["test_bits_per_dim"], "images_seen": _seen(scores)}
    write_signed({"config": {"density": lab.density_fingerprint}, "results": kept}, own / f"{data_set}-{KEPT}")
    return own


def states(lab: Lab, folder: Path = FOLDER) -> list[State]:
    """Earlier densities of a lab's data set, the worst first, and at the end the lab's own; all on the images that all have.

    Those are left out that were kept with another classifier, precision or copy of the images, and any that is no worse than
    the lab's own. Raises as `load_record`.
    """
    wanted = _conditions(lab)
    scores = read_scores(paths.WEIGHTS / "pixelcnn" / lab.density_name)
    own = _state(scores, {eps: lab.record(of) for eps, of in wanted.items()})
    found = [own]
    for path in folder.glob(f"{lab.data_set}-*/{lab.data_set}-{KEPT}"):
        records = {eps: load_record(path.with_name(f"{of.name}.json")) for eps, of in wanted.items()}
        kept = _state(read_signed(path)["results"], records)
        same = all(_comparable(kept.records[eps], own.records[eps]) for eps in wanted)
        found += [kept] if same and kept.bits > own.bits else []
    return _on_the_same_images(sorted(found, key=lambda state: -state.bits))


def _state(scores: Mapping, records: Mapping[int, Record]) -> State:
    return State(scores["test_bits_per_dim"], _seen(scores), records)


def _conditions(lab: Lab) -> dict[int, Condition]:
    return {eps: lab.pixeldefend(ATTACK if eps else "clean", eps) for eps in (0, *EPS_ATTACK[lab.data_set])}


def _seen(scores: Mapping) -> int:
    return scores["images_seen"] + scores.get(BEFORE, 0)


def _comparable(one: Record, other: Record) -> bool:
    """Whether two records differ in nothing but the density and how many of the same images there are."""
    first, second = shared(one, other)
    settings = ({k: v for k, v in of.config.items() if k not in ("density", "images", "data")} for of in (one, other))
    return first.labels == second.labels and next(settings) == next(settings)


def _on_the_same_images(found: Sequence[State]) -> list[State]:
    every = iter(shared(*(record for state in found for record in state.records.values())))
    return [replace(state, records={eps: next(every) for eps in state.records}) for state in found]


def change(found: Sequence[State], eps: int) -> tuple[float, float, float]:
    """By how many points the last density has the ResNet right more often than the first, with a 95 % interval, image by
    image: (mean, low, high)."""
    first, last = (state.records[eps].correct.double() for state in (found[0], found[-1]))
    return mean_interval(100 * (last - first))


def straight_on(found: Sequence[State], eps: int, bits: float) -> float:
    """Accuracy in percent at ``bits`` per dimension on the straight line that fits the states best (least squares);
    not a number for a single state."""
    if len(found) < 2:
        return math.nan
    accuracies = [100 * state.records[eps].accuracy for state in found]
    return float(np.polyval(np.polyfit([state.bits for state in found], accuracies, 1), bits))


def table(data_set: str, found: Sequence[State]) -> str:
    """Accuracy in percent behind each density, with 95 % Wilson intervals, in Markdown; then the change from the first to
    the last, image by image, and the paper's."""
    columns = list(found[0].records)
    names = [f"{NAMES[ATTACK]}, eps {eps}" if eps else "clean" for eps in columns]
    rows = [["bits per dimension", "images seen", *names], ["---", "--:", *[":-:"] * len(names)]]
    for of in found:
        cells = [accuracy_cell(record, None) for record in of.records.values()]
        rows.append([f"{of.bits:.3f}", f"{of.images_seen:,}", *cells])
    if len(found) > 1:
        changes = [change(found, eps) for eps in columns]
        cells = [f"{mean:+.1f}<br>[{low:+.1f},&nbsp;{high:+.1f}]" for mean, low, high in changes]
        rows.append(["*change in points*", "", *(cell.replace("-", "\N{MINUS SIGN}") for cell in cells)])
    rows.append([f"*{PAPER_BITS[data_set]}, the paper*", "", *(f"{_paper(data_set, eps):.0f}" for eps in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _paper(data_set: str, eps: int) -> float:
    condition = LOWER_ROWS[0].condition(data_set, ATTACK if eps else "clean", eps)
    return paper_accuracy(condition, eps=eps or EPS_ATTACK[data_set][0])


def figure(sets: Mapping[str, Sequence[State]]) -> Figure:
    """Accuracy behind purification against the density's bits per dimension, a line for each eps; the paper's are hollow."""
    drawn = Figure(figsize=(4.2 * len(sets), 3.4), layout="constrained")
    for axes, (data_set, found) in zip(drawn.subplots(1, len(sets), squeeze=False)[0], sets.items(), strict=True):
        for eps, colour, marker in zip(found[0].records, COLOURS, "osD^", strict=False):
            values = [100 * state.records[eps].accuracy for state in found]
            name = f"{NAMES[ATTACK]}, eps {eps}" if eps else "clean"
            axes.plot([state.bits for state in found], values, color=colour, marker=marker, markersize=5, label=name)
            axes.plot(PAPER_BITS[data_set], _paper(data_set, eps), color=colour, marker=marker, markersize=7,
                      fillstyle="none")  # fmt: skip
        axes.set(xlabel="bits per dimension, test images", ylim=(0, 100), title=TITLES[data_set])
        axes.invert_xaxis()  # better to the right
        axes.locator_params(axis="x", nbins=5)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(0, 0.44))  # where no line is
    drawn.axes[0].set_ylabel("accuracy behind PixelDefend (%)")
    return drawn
