"""Figures of purified images: figures 4, 5, 10 and 11 of the paper, a group of rows or a panel for each data set."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

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
