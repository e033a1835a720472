"""The figures of the book: matplotlib figures from scores and images, in one colour-blind-safe style.

Colours are those of Okabe and Ito, one per kind of image throughout the book; line styles repeat the distinction for
readers (and printers) without colour.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.pyplot  # noqa: F401  registers the notebook's formatter for figures
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..scaling import TOP
from .conditions import NAMES, TUNED

COLOURS = {
    "clean": "#000000",
    "rand": "#E69F00",
    "fgsm": "#0072B2",
    "bim": "#D55E00",
    "deepfool": "#CC79A7",
    "carlini_wagner": "#009E73",
    TUNED: "#56B4E9",
}
STYLES = {
    "clean": "-",
    "rand": ":",
    "fgsm": "--",
    "bim": "-.",
    "deepfool": (0, (6, 2, 1, 2, 1, 2)),
    "carlini_wagner": (0, (8, 2)),
    TUNED: (0, (3, 1)),
}
OTHER = "#777777"  # anything that is no attack
STYLE = {
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "svg.hashsalt": "pixeldefend",  # ids in SVG files that do not change from run to run
}


def use_style() -> None:
    """Set the book's style for all figures made afterwards; in a notebook they become SVG, the same at every run."""
    matplotlib.rcParams.update(STYLE)
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})
    except (ImportError, AttributeError):  # no IPython, or not inside a notebook
        pass


def label(name: str) -> str:
    """How a kind of image is called in a legend."""
    return NAMES.get(name, name)


def kind_of(name: str) -> str:
    """The key of `NAMES` of a curve or panel that is called, for example, "CW, tuned, eps 8"; the name itself if none."""
    begun = [kind for kind, called in NAMES.items() if name.lower().startswith(called.lower())]
    return max(begun, key=lambda kind: len(NAMES[kind]), default=name)


def draw_bits(axes, groups: Mapping[str, Tensor], *, bins: int = 40) -> None:
    """Histograms of bits per dimension, one outline per group (figure 2a); ``groups`` maps a kind to its (N,) scores."""
    values = np.concatenate([v.numpy() for v in groups.values()])
    edges = np.linspace(values.min(), values.max(), bins + 1)
    for kind, scores in groups.items():
        colour, style = COLOURS.get(kind, OTHER), STYLES.get(kind, "-")
        axes.hist(scores.numpy(), edges, density=True, histtype="stepfilled", color=colour, alpha=0.12)
        axes.hist(scores.numpy(), edges, density=True, histtype="step", color=colour, linestyle=style, linewidth=1.6,
                  label=f"{label(kind)} (mean {scores.mean():.2f})")
    axes.set(xlabel="bits per dimension", ylabel="density of images", xlim=(edges[0], edges[-1]))
    axes.legend()


def draw_p_values(axes, values: Tensor, kind: str, *, bins: int = 20) -> None:
    """A histogram of p-values (figure 3), with the level of a uniform distribution dashed.

    ``kind`` begins with a name in `conditions.NAMES`.
    """
    colour, weights = COLOURS.get(kind_of(kind), OTHER), np.full(len(values), 1 / len(values))
    axes.hist(values.numpy(), np.linspace(0, 1, bins + 1), weights=weights, color=colour, alpha=0.75)
    axes.axhline(1 / bins, color="#555555", linestyle="--", linewidth=1)
    axes.set(xlim=(0, 1))


def draw_roc(axes, curves: Mapping[str, object]) -> None:
    """ROC curves (figure 6), but for their legend; ``curves`` maps a name to a `pixeldefend.detection.ROC`.

    A name begins with that of its attack in `conditions.NAMES`. Curves of one attack differ in width: the first is the
    thinnest.
    """
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=(0, (1, 2)))
    drawn = Counter()
    for name, curve in curves.items():
        kind = kind_of(name)
        axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=COLOURS[kind], linestyle=STYLES[kind],
                  linewidth=1.2 + 0.8 * drawn[kind], label=f"{name} (AUC {curve.auc:.3f})")
        drawn[kind] += 1
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")


def cost_of_purifying(content: Mapping) -> Figure:
    """Images a second and forward passes against the batch size, from a record of `pixeldefend.study.speed.measure`."""
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    rate, passes = figure.subplots(1, 2)
    for (precision, colour), marker in zip({"float32": "#0072B2", "bfloat16": "#D55E00"}.items(), "os", strict=True):
        entries = [entry for entry in content["purify"] if entry["precision"] == precision]
        batches = [entry["images"] for entry in entries]
        style = {"color": colour, "marker": marker, "label": precision}
        rate.loglog(batches, [entry["images_per_second"] for entry in entries], **style)
        passes.loglog(batches, [entry["forward_passes"] for entry in entries], **style)
    lines = {"the authors, CIFAR-10 on a TITAN Xp": (3.6, ":")}
    if content["naive"]:
        lines["one forward pass per pixel"] = (content["naive"]["images_per_second"], "--")
    for text, (value, style) in lines.items():
        rate.axhline(value, color="#555555", linestyle=style, label=text)
    passes.axhline(1, color="#555555", linewidth=1)
    rate.set(xlabel="images in one call", ylabel="images per second")
    passes.set(xlabel="images in one call", ylabel="cost in forward passes")
    rate.set_ylim(top=2000)  # room for the legend
    rate.legend(fontsize=8, loc="upper left")
    passes.legend(fontsize=8)
    return figure


def gallery(rows: Mapping[str, Tensor], *, captions: Mapping[str, Sequence[str]] | None = None) -> Figure:
    """Images side by side (figures 1, 4 and 10): each entry of ``rows`` is a title and uint8 images (N, C, H, W).

    ``captions`` may give a row one short text per image, printed below it.
    """
    count = max(len(images) for images in rows.values())
    figure = Figure(figsize=(0.95 * count + 1.1, 1.15 * len(rows)), layout="constrained")
    draw_gallery(figure, rows, captions=captions)
    return figure


def draw_gallery(figure, rows: Mapping[str, Tensor], *, captions: Mapping[str, Sequence[str]] | None = None,
                 titles: Sequence[str] = ()) -> None:  # fmt: skip
    """Draw `gallery` into a figure or a part of one; ``titles`` stand above the columns."""
    count = max(len(images) for images in rows.values())
    grid = figure.subplots(len(rows), count, squeeze=False)
    for line, (title, images) in zip(grid, rows.items(), strict=True):
        for n, axes in enumerate(line):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if n < len(images):
                show(axes, images[n])
            if captions and title in captions and n < len(captions[title]):
                axes.set_xlabel(captions[title][n], fontsize=9, labelpad=2)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=11)
    for axes, text in zip(grid[0], titles, strict=False):
        axes.set_title(text, fontsize=11)


def attack_gallery(clean: Tensor, attacked: Mapping[str, Tensor], *, eps: int,
                   captions: Mapping[str, str] | None = None) -> Figure:  # fmt: skip
    """An image and what attacks made of it, a column each; below each image its change, magnified.

    Grey is no change, black and white are changes by -eps and +eps; of a colour image, in each channel.

    Args:
        clean: uint8 (C, H, W).
        attacked: a title, or a kind of `conditions.NAMES`, and the attacked image, uint8 (C, H, W).
        eps: colour levels, at least 1.
        captions: a short text for some of the columns, printed below; that of ``clean`` is called "clean".
    """
    columns = {"clean": clean, **attacked}
    figure = Figure(figsize=(1.5 * len(columns) + 0.6, 3.6), layout="constrained")
    grid = figure.subplots(2, len(columns), squeeze=False)
    for (above, below), (title, image) in zip(grid.T, columns.items(), strict=True):
        show(above, image)
        show(below, magnified_change(clean, image, eps))
        above.set_title(label(title), fontsize=11)
        below.set_xlabel((captions or {}).get(title, ""), fontsize=9, labelpad=3)
        for axes in (above, below):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    for axes, text in zip(grid[:, 0], ("image", "change"), strict=True):
        axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=11)
    return figure


def magnified_change(clean: Tensor, attacked: Tensor, eps: int) -> Tensor:
    """The difference of two uint8 images as one: 128 where there is none, 1 for -eps and 255 for +eps."""
    change = (attacked.float() - clean.float()) / eps
    middle = (TOP + 1) // 2
    return (middle + (middle - 1) * change).round().clamp(0, TOP).to(torch.uint8)


def show(axes, image: Tensor) -> None:
    """Draw one uint8 image (C, H, W), without smoothing."""
    pixels = image.permute(1, 2, 0).numpy()
    axes.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
