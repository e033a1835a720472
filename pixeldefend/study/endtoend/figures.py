"""Figures of `attacks`, in the style of `figures`."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from ...classifiers import predict
from ..available import TITLES
from ..lab import Lab
from ..purification.purified import Panel, class_names
from ..tables import wilson_interval
from .attacks import right_after, unpacked

SHADES = ("#0072B2", "#D55E00", "#009E73", "#E69F00")  # of temperatures and of eps, from the first on
LINES = ("-", "--", "-.", ":")
INVISIBLE = 1e-6  # of the gradient before purification


def chain_panels(measured: Mapping[str, Mapping]) -> Figure:
    """How much of a gradient went through how many purified sub-pixels; a panel for each data set.

    ``measured``: by data set, what `attacks.through_purification` returned. For each temperature the mean over the images,
    as a share of the gradient's size behind purification, and the images' own curves, thin.
    """
    figure, panels = _panels(len(measured))
    for axes, (data_set, results) in zip(panels, measured.items(), strict=True):
        for row, colour, line in zip(results["flow"], SHADES, LINES, strict=True):
            shares = np.array(row["chain_norms"]) / np.array(row["incoming"])[:, None]
            shares[shares < INVISIBLE] = np.nan
            axes.semilogy(shares.T, color=colour, linestyle=line, linewidth=0.6, alpha=0.4)
            counted = np.where(np.isnan(shares), 0, shares).mean(axis=0)
            text = f"temperature {row['temperature']:g}" + ("" if counted.any() else ": exactly 0")
            axes.semilogy(np.where(counted > 0, counted, np.nan), color=colour, linestyle=line, linewidth=2, label=text)
        axes.axhline(1, color="#555555", linewidth=1, linestyle=(0, (1, 2)))
        axes.set(title=TITLES[data_set], xlabel="purified sub-pixels on the way", ylim=(INVISIBLE, None), xlim=(0, None))
    panels[0].set_ylabel("size, relative to the\ngradient behind purification")
    panels[-1].legend(fontsize=8)
    return figure


def accuracy_by_steps(measured: Mapping[str, Mapping], *, steps: Mapping[str, int]) -> Figure:
    """Accuracy of the defended classifier against the steps of BPDA, with 95 % intervals; a panel for each data set.

    ``measured``: by data set, what `attacks.around_purification` returned, with as many ``steps``. Dotted, what BIM leaves
    that does not know of the defence.
    """
    figure, panels = _panels(len(measured))
    for axes, (data_set, results) in zip(panels, measured.items(), strict=True):
        labels, taken = results["labels"], np.arange(steps[data_set] + 1)
        for (eps, cells), colour, line in zip(results["attacks"].items(), SHADES, LINES, strict=False):
            right = right_after(cells["bpda"]["first_wrong"], steps[data_set])
            low, high = zip(*(wilson_interval(count, len(labels)) for count in right), strict=True)
            axes.fill_between(taken, 100 * np.array(low), 100 * np.array(high), color=colour, alpha=0.15, linewidth=0)
            axes.plot(taken, [100 * count / len(labels) for count in right], color=colour, linestyle=line, linewidth=2,
                      label=f"BPDA, eps {eps}")
            axes.axhline(_accuracy(cells["bim"], labels), color=colour, linestyle=":", label=f"BIM, unaware, eps {eps}")
        axes.set(title=TITLES[data_set], xlabel="steps of one level", ylim=(0, 100), xlim=(0, taken[-1]))
        axes.legend(fontsize=8)
    panels[0].set_ylabel("accuracy after purification (%)")
    return figure


def attacked_panel(lab: Lab, results: Mapping, eps: int) -> Panel:
    """The first test images: clean, after BPDA, and what purification makes of that; the classes are those seen."""
    rows = {"BPDA": unpacked(results["gallery"][str(eps)]["bpda"])}
    rows = {"clean": lab.test.images[: len(rows["BPDA"])], **rows}
    rows["purified"] = unpacked(results["gallery"][str(eps)]["purified"])
    labels, net = torch.tensor(results["labels"][: len(rows["BPDA"])]), lab.classifier()
    return Panel(rows, {title: class_names(lab.test, predict(net, images), labels) for title, images in rows.items()}, [])


def _accuracy(cell: Mapping, labels: Sequence[int]) -> float:
    return 100 * float(np.mean(np.array(cell["predictions"]) == np.array(labels)))


def _panels(count: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(4.4 * count + 1.2, 3.4), layout="constrained")
    return figure, np.atleast_1d(figure.subplots(1, count))
