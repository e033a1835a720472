"""Figures of purified images: figures 4, 5, 10 and 11 of the paper, a group of rows or a panel for each data set; and of
adaptive purification."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ..adaptive import Outcome, choose_threshold, strongest_accuracy, thresholds
from ..available import FIGURE_EPS, TITLES
from ..figures import COLOURS, OTHER, draw_gallery, kind_of, label
from .optimisation import CALLED, Comparison
from .purified import Panel

SEARCHED = {"continuous": COLOURS["bim"], "context": COLOURS["deepfool"]}  # colours of L-BFGS-B, by objective


def galleries(sets: Mapping[str, Panel], *, width: float = 0.95) -> Figure:
    """Rows of images, one data set below the other; ``width`` is that of an image, in inches."""
    count = max(len(images) for panel in sets.values() for images in panel.rows.values())
    heights = [1.2 * len(panel.rows) + 0.35 + 0.25 * bool(panel.titles) for panel in sets.values()]
    figure = Figure(figsize=(width * count + 1.1, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(sets), 1, squeeze=False, height_ratios=heights).ravel()
    for part, (data_set, panel) in zip(parts, sets.items(), strict=True):
        part.suptitle(TITLES[data_set], fontsize=11, x=0.01, ha="left")
        draw_gallery(part, panel.rows, captions=panel.captions, titles=panel.titles)
    return figure


def purified_bits(sets: Mapping[str, Mapping[str, Tensor]], *, bins: int = 40) -> Figure:
    """Histograms of bits per dimension, one panel below the other; a name that ends in "purified" is dashed.

    The outer mapping goes from a data set to its groups, the inner one from a name that begins with one of
    `conditions.NAMES` to the scores, (N,).
    """
    figure = Figure(figsize=(8.4, 3.0 * len(sets)), layout="constrained")
    panels = figure.subplots(len(sets), 1, squeeze=False).ravel()
    for axes, (data_set, groups) in zip(panels, sets.items(), strict=True):
        edges = np.histogram_bin_edges(np.concatenate([scores.numpy() for scores in groups.values()]), bins)
        for name, scores in groups.items():
            style = {"color": COLOURS[kind_of(name)], "linestyle": "--" if name.endswith("purified") else "-"}
            axes.hist(scores.numpy(), edges, density=True, histtype="step", linewidth=1.6, **style,
                      label=f"{label(name)} (mean {scores.mean():.2f})")
        axes.set(xlabel="bits per dimension", ylabel="density of images", xlim=(edges[0], edges[-1]))
        axes.set_title(TITLES[data_set], fontsize=11, loc="left")
        axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))  # beside: the curves fill the panel
    return figure


def purifier_strips(sets: Mapping[str, Comparison]) -> Figure:
    """Bits per dimension before and after purification by either method (figure 5): a point for each image or run.

    A bar marks the mean; the dotted line is the mean of the clean images.
    """
    strips = {data_set: _strips(comparison) for data_set, comparison in sets.items()}
    heights = [0.36 * len(rows) + 0.7 for rows in strips.values()]
    figure = Figure(figsize=(7.4, sum(heights)), layout="constrained")
    panels = figure.subplots(len(sets), 1, squeeze=False, height_ratios=heights).ravel()
    for axes, (data_set, rows) in zip(panels, strips.items(), strict=True):
        for place, (_, values, colour) in enumerate(rows):
            flat = values.numpy().ravel()
            offsets = np.linspace(-0.22, 0.22, len(flat)) if len(flat) > 1 else np.zeros(1)
            axes.plot(flat, place + offsets, "o", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
            axes.plot([flat.mean()] * 2, [place - 0.36, place + 0.36], color=colour, linewidth=2.5)
        axes.axvline(sets[data_set].bits["clean"].mean(), color="#555555", linestyle=":", linewidth=1)
        axes.set_yticks(range(len(rows)), [title for title, _, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel("bits per dimension")
        axes.set_title(TITLES[data_set], fontsize=11, loc="left")
    return figure


def _strips(comparison: Comparison) -> list[tuple[str, Tensor, str]]:
    """Title, values and colour of each strip."""
    starts = next(iter(comparison.runs.values())).start  # those of all objectives are the same images
    rows = [
        ("clean", comparison.bits["clean"], COLOURS["clean"]),
        (f"FGSM, eps {FIGURE_EPS}", comparison.bits["attacked"], COLOURS["fgsm"]),
        ("greedy decoding", comparison.bits["greedy"], COLOURS["carlini_wagner"]),
        ("random starts of L-BFGS-B", starts, OTHER),
    ]
    for objective, runs in comparison.runs.items():
        colour = SEARCHED[objective]
        rows += [(f"L-BFGS-B, {CALLED[objective]}", runs.real, colour), ("the same, rounded", runs.rounded, colour)]
    return rows


def threshold_figure(found: Mapping[str, Outcome], eps_attacks: Sequence[int], *, paper: float) -> Figure:
    """Accuracy against the threshold of `adaptive.choose_threshold`, on clean images and under each eps's strongest attack.

    ``paper`` is the paper's threshold, bits per dimension, drawn dotted; ours is dashed.
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes, tried = figure.subplots(), thresholds(found)
    axes.plot(tried, [100 * found["clean"].accuracy(t) for t in tried], color="#000000", label="clean")
    for eps, colour, style in zip(eps_attacks, ("#0072B2", "#D55E00", "#009E73"), ("--", "-.", ":"), strict=False):
        values = [100 * strongest_accuracy(found, eps, t) for t in tried]
        axes.plot(tried, values, color=colour, linestyle=style, label=f"strongest attack, eps {eps}")
    axes.axvline(choose_threshold(found, eps_attacks), color="#555555", linestyle="--", linewidth=1, label="ours")
    axes.axvline(paper, color="#555555", linestyle=":", linewidth=1, label="paper")
    axes.set(xlabel="threshold (bits per dimension)", ylabel="accuracy (%)", ylim=(0, 100))
    axes.legend(fontsize=8, loc="lower left")
    return figure
