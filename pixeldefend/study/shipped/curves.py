"""Training curves of what ships with the book."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ... import paths
from ...classifiers import saved_classifiers
from ...classifiers.store import classifier_name
from ...weights import CONFIG, LOG
from ..available import TITLES
from ..claims.likelihood import PAPER_BITS
from ..conditions import UPPER_ROWS, Row
from .trained import Density

COLOURS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73")  # of the classifiers, in the order of the tables


def of_densities(found: Sequence[Density]) -> Figure:
    """Bits per dimension of the last run's training images, before each was learnt from, and of the test images."""
    figure = Figure(figsize=(4.2 * len(found), 3.2), layout="constrained")
    for axes, of in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        seen = [(of.before + entry["images"]) / 1000 for entry in of.log]
        axes.plot(seen, [entry["bits_per_dim"] for entry in of.log], ".", color="#0072B2", markersize=4)
        test, paper = of.scores["test_bits_per_dim"], PAPER_BITS[of.data_set]
        axes.axhline(test, color="#D55E00", linestyle="--", label="test images, averaged weights")
        axes.axhline(paper, color="#555555", linestyle=":", label="paper, test images")
        axes.set(xlabel="training images seen (thousands)", ylim=(min(test, paper) - 0.2, max(test, paper) + 1.2),
                 title=f"{TITLES[of.data_set]} ({of.name})")  # fmt: skip
        axes.legend(fontsize=8)
    figure.axes[0].set_ylabel("bits per dimension")
    return figure


def of_classifiers(root: Path | None = None) -> Figure:
    """Accuracy on the training images of the last run, as they came; dashed: on those that were attacked, which in
    adversarial training is half of each batch, and then the solid line is for the other half.

    One panel for each data set, against the passes over its training images. ``root``: a folder of classifiers.
    """
    figure = Figure(figsize=(4.2 * len(TITLES), 3.6), layout="constrained")
    rows = [row for row in UPPER_ROWS if row.defence == "none"]
    for axes, data_set in zip(figure.subplots(1, len(TITLES), sharey=True), TITLES, strict=True):
        for row, colour in zip(rows, COLOURS, strict=True):
            _draw(axes, data_set, row, colour, paths.WEIGHTS / "classifiers" if root is None else root)
        axes.set(xlabel="passes over the training images, last run", title=TITLES[data_set], ylim=(0, 100))
    figure.axes[0].set_ylabel("accuracy, training images (%)")
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines() if line.get_label()[0] != "_"}
    if lines:
        figure.axes[-1].legend(lines.values(), lines.keys(), fontsize=8, loc="lower right")
    return figure


def _draw(axes, data_set: str, row: Row, colour: str, root: Path) -> None:
    name = classifier_name(data_set, row.network, row.training)
    if name not in saved_classifiers(root):
        return
    log = [json.loads(line) for line in (root / name / LOG).read_text().splitlines()]
    size = json.loads((root / name / CONFIG).read_text())["settings"]["training_images"]
    passes = [entry["images"] / size for entry in log]
    for key, style, label in (("accuracy", "-", row.title), ("adversarial_accuracy", "--", None)):
        if key in log[0]:
            axes.plot(passes, [100 * entry[key] for entry in log], style, color=colour, linewidth=1.2, label=label)
