"""Figures 2, 3 and 6 of the paper and that of its appendix A, a panel or a group of panels for each data set.

The outer mappings go from a data set to its groups; the inner ones from a kind of image, a key of `conditions.NAMES`, to
what is drawn of it.
"""

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from ..available import TITLES
from ..conditions import Condition, paper_accuracy
from ..figures import COLOURS, OTHER, draw_bits, draw_p_values, draw_roc, label
from ..records import Record
from ..tables import wilson_interval


def likelihood_panels(sets: Mapping[str, Mapping[str, Tensor]], *, bins: int = 40,
                      thresholds: Mapping[str, Mapping[str, float]] | None = None) -> Figure:  # fmt: skip
    """Histograms of bits per dimension (figure 2a), one panel below the other.

    ``thresholds`` may mark some positions in the panel of a data set: a text for the legend, and bits per dimension.
    """
    figure = Figure(figsize=(7.2, 3.3 * len(sets)), layout="constrained")
    panels = figure.subplots(len(sets), 1, squeeze=False).ravel()
    for axes, (data_set, groups) in zip(panels, sets.items(), strict=True):
        draw_bits(axes, groups, bins=bins)
        for style, (text, value) in zip(("--", ":", "-."), (thresholds or {}).get(data_set, {}).items(), strict=False):
            axes.axvline(value, color="#555555", linestyle=style, linewidth=1.4, label=f"{text} ({value:.2f})")
        axes.legend(fontsize=8)
        axes.set_title(TITLES[data_set], fontsize=11, loc="left")
    return figure


def error_bars(sets: Mapping[str, Mapping[str, Record]]) -> Figure:
    """Test errors in percent with 95 % Wilson intervals (figure 2b), and as diamonds the paper's of tables 1 and 2.

    The records are those of `Condition`, whose configuration says which number of the paper belongs beside it: of clean
    images, the one in the column of the others' eps.
    """
    figure = Figure(figsize=(7.2, 2.9 * len(sets)), layout="constrained")
    panels = figure.subplots(len(sets), 1, squeeze=False).ravel()
    for axes, (data_set, records) in zip(panels, sets.items(), strict=True):
        column = max(record.config["eps"] for record in records.values())
        for place, (kind, record) in enumerate(records.items()):
            count, wrong = len(record), len(record) - int(record.correct.sum())
            low, high = wilson_interval(wrong, count)
            error = wrong / count
            axes.bar(place, 100 * error, color=COLOURS.get(kind, OTHER), alpha=0.6, width=0.6)
            axes.errorbar(place, 100 * error, [[100 * (error - low)], [100 * (high - error)]], color="black", capsize=4,
                          linewidth=1.2)
            axes.text(place, 100 * high + 2, f"{100 * error:.1f}", ha="center", fontsize=9)
            paper = paper_accuracy(Condition(data_set, kind, record.config["eps"]), eps=column)
            if paper is not None:
                axes.plot(place + 0.38, 100 - paper, "D", color="white", markeredgecolor="black", markersize=6,
                          label="paper" if place == 0 else None)
        axes.set_xticks(range(len(records)), [f"{label(kind)}\nn = {len(record)}" for kind, record in records.items()])
        axes.set(ylabel="test error (%)", ylim=(0, 112), yticks=range(0, 101, 20))
        axes.set_title(TITLES[data_set], fontsize=11, loc="left")
        axes.legend(loc="upper left")
    return figure


def p_value_panels(sets: Mapping[str, Mapping[str, Tensor]], *, bins: int = 20) -> Figure:
    """Histograms of p-values (figure 3), three in a row, with the level of a uniform distribution dashed."""
    columns = 3
    rows = [-(-len(groups) // columns) for groups in sets.values()]
    figure = Figure(figsize=(7.8, 2.3 * sum(rows) + 0.3 * len(rows)), layout="constrained")
    parts = figure.subfigures(len(sets), 1, squeeze=False, height_ratios=rows).ravel()
    for part, height, (data_set, groups) in zip(parts, rows, sets.items(), strict=True):
        part.suptitle(TITLES[data_set], fontsize=11, x=0.01, ha="left")
        panels = part.subplots(height, columns, squeeze=False).ravel()
        for place, (axes, (kind, values)) in enumerate(zip(panels, groups.items(), strict=False)):
            draw_p_values(axes, values, label(kind), bins=bins)
            axes.set_title(f"({chr(97 + place)}) {label(kind)}", fontsize=10)
            axes.set_xlabel("p-value" if place + columns >= len(groups) else "")
            axes.set_ylabel("fraction of images" if place % columns == 0 else "")
        for axes in panels[len(groups) :]:
            axes.remove()
    return figure


def roc_panels(sets: Mapping[str, Mapping[str, object]], *, legend: str = "lower right") -> Figure:
    """ROC curves (figure 6), the panels side by side; each curve is a `pixeldefend.detection.ROC`, ``legend`` a corner."""
    figure = Figure(figsize=(max(7.4, 4.6 * len(sets) + 0.2), 4.6), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False).ravel()
    for axes, (data_set, curves) in zip(panels, sets.items(), strict=True):
        draw_roc(axes, {label(kind): curve for kind, curve in curves.items()})
        axes.set_title(TITLES[data_set], fontsize=11, loc="left")
        axes.legend(loc=legend, fontsize=8)
    return figure
