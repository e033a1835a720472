"""Greedy decoding against L-BFGS-B: what figure 5 of the paper compares, image by image and run by run.

The images are the first of the test set, attacked by FGSM with the eps of the paper's figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import t
from torch import Tensor, nn

from ...classifiers import predict
from ...defenses import PixelDefend, lbfgs_purify
from ...defenses.lbfgs import OBJECTIVES
from ...fingerprint import fingerprint
from ...pixelcnn import PixelCNN
from ..available import FIGURE_EPS
from ..conditions import EPS_DEFEND, Condition
from ..lab import Lab
from ..records import tensor_digest
from ..tables import percent_interval

NAME = "lbfgs"  # of the measurement
TOGETHER = 8  # runs that share an evaluation: it decides the last digits, so it is fixed
CALLED = {"continuous": "continuous objective", "context": "integer objective"}
SINGLE = ("clean", "attacked", "greedy")  # one image, not one for each start


@dataclass(frozen=True)
class Search:
    """How much is searched: the first ``images`` test images, ``starts`` for each, ``max_iterations`` a run."""

    images: int
    starts: int
    max_iterations: int


SEARCHES = {
    "smoke": Search(images=2, starts=1, max_iterations=1),
    "laptop": Search(images=10, starts=3, max_iterations=40),  # some five minutes on a core of its own
    "paper": Search(images=10, starts=100, max_iterations=200),  # images and starts of figure 5
}


@dataclass(frozen=True)
class Runs:
    """The S runs of L-BFGS-B for each of N images: bits per dimension, float64 (N, S), except where it says otherwise.

    ``start`` is that of the random start and ``real`` that of the result, both as the objective sees them; ``rounded``
    that of the result rounded to colour levels. ``iterations``, ``evaluations`` (of the density and its gradient) and
    ``predictions`` (for the rounded result) are int64.
    """

    start: Tensor
    real: Tensor
    rounded: Tensor
    iterations: Tensor
    evaluations: Tensor
    predictions: Tensor

    @property
    def best(self) -> Tensor:
        """The lowest bits per dimension that the runs of an image reached, rounded: (N,)."""
        return self.rounded.amin(1)

    @property
    def rounding(self) -> Tensor:
        """What rounding adds to the bits per dimension, (N, S)."""
        return self.rounded - self.real

    def less_likely_than(self, bits: Tensor) -> int:
        """How many runs end, rounded, at an image that is less likely than one of ``bits`` (N,) bits per dimension."""
        return int((self.rounded > bits[:, None]).sum())


@dataclass(frozen=True)
class Comparison:
    """N images before and after purification.

    ``labels`` (N,); ``bits`` and ``predictions`` (N,) of each of `SINGLE`; ``runs`` by objective of
    `pixeldefend.defenses.lbfgs`.
    """

    labels: Tensor
    bits: dict[str, Tensor]
    predictions: dict[str, Tensor]
    runs: dict[str, Runs]

    @classmethod
    def from_plain(cls, found: Mapping) -> "Comparison":
        """From what `compare` returns."""
        bits = {kind: torch.tensor(found["bits"][kind], dtype=torch.float64) for kind in SINGLE}
        predictions = {kind: torch.tensor(found["predictions"][kind]) for kind in SINGLE}
        runs = {}
        for objective, columns in found["runs"].items():
            tensors = {name: torch.tensor(column) for name, column in columns.items()}
            runs[objective] = Runs(**{k: v.double() if v.is_floating_point() else v for k, v in tensors.items()})
        return cls(torch.tensor(found["labels"]), bits, predictions, runs)


def compare(density: PixelCNN, net: nn.Module, clean: Tensor, attacked: Tensor, labels: Tensor, *, eps_defend: int,
            search: Search, seed: int = 0, objectives: Sequence[str] = OBJECTIVES) -> dict:  # fmt: skip
    """Purify ``attacked`` greedily and by L-BFGS-B; score and classify everything: plain values for `Comparison`.

    All objectives begin from the same random starts. Scores are computed in float32.

    Args:
        density, net: purifies and scores; classifies.
        clean, attacked: uint8 (N, C, H, W); ``labels`` int64 (N,).
        eps_defend: colour levels, for both purifiers.
        search: its ``images`` is not used.
        seed: of the starts.
        objectives: see `lbfgs_purify`.
    """
    images = {"clean": clean, "attacked": attacked, "greedy": PixelDefend(density, eps_defend=eps_defend)(attacked)}
    found = {
        "labels": labels.tolist(),
        "bits": {kind: _plain(density.bits_per_dim(of)) for kind, of in images.items()},
        "predictions": {kind: predict(net, of).tolist() for kind, of in images.items()},
        "runs": {},
    }
    for objective in objectives:
        optima = lbfgs_purify(density, attacked, eps_defend=eps_defend, starts=search.starts, objective=objective,
                              generator=torch.Generator().manual_seed(seed), max_iterations=search.max_iterations,
                              batch_size=TOGETHER)  # fmt: skip
        found["runs"][objective] = {
            "start": _plain(optima.start_bits),
            "real": _plain(optima.real_bits),
            "rounded": _plain(optima.bits),
            "iterations": optima.iterations.tolist(),
            "evaluations": optima.evaluations.tolist(),
            "predictions": predict(net, optima.images.flatten(0, 1)).view(optima.bits.shape).tolist(),
        }
    return found


def _plain(bits: Tensor) -> list:
    return torch.round(bits.double(), decimals=6).tolist()


def measured(lab: Lab, search: Search, *, seed: int = 0) -> Comparison:
    """`compare` on a lab's first test images after FGSM on the normally trained ResNet; from its record if it has one."""
    images, labels = lab.test.images[: search.images], lab.test.labels[: search.images]
    config = {
        "attack": "fgsm",
        "eps": FIGURE_EPS,
        "eps_defend": EPS_DEFEND[lab.data_set],
        **vars(search),
        "runs_together": TOGETHER,
        "objectives": OBJECTIVES,
        "seed": seed,
        "data": tensor_digest(images, labels),
        "classifier": fingerprint(lab.classifier()),
        "density": lab.density_fingerprint,
    }
    return Comparison.from_plain(lab.measurement(NAME, config, lambda: compared(lab, search, seed=seed)))


def compared(lab: Lab, search: Search, **options) -> dict:
    """`compare` on those images, computed; ``options`` as for `compare`."""
    attacked = lab.attacked(Condition(lab.data_set, "fgsm", FIGURE_EPS), limit=search.images)
    images, labels = lab.test.images[: len(attacked)], lab.test.labels[: len(attacked)]
    return compare(lab.density, lab.classifier(), images, attacked, labels, eps_defend=EPS_DEFEND[lab.data_set],
                   search=search, **options)  # fmt: skip


def comparison_table(comparison: Comparison) -> str:
    """Figure 5 in numbers, as a Markdown table: bits per dimension, failures, and the classes that were seen.

    Bits are means over the images (of the means of their runs), with a 95 % interval from Student's t. The intervals of
    shares are Wilson's; they take runs as independent, though those that share an image are not.
    """
    heads = ["purified by", "n", "bits per dimension", "less likely than the FGSM image, in %", "classified correctly, in %"]
    lines = ["| " + " | ".join(heads) + " |", "|---|--:|:-:|:-:|:-:|"]
    given, labels = comparison.bits["attacked"], comparison.labels
    titles = {"clean": "not attacked, not purified", "attacked": "FGSM, not purified", "greedy": "greedy decoding"}
    for kind, title in titles.items():
        bits = comparison.bits[kind][:, None]
        fewer = None if kind == "attacked" else int((bits[:, 0] > given).sum())
        lines.append(_line(title, bits, fewer, comparison.predictions[kind][:, None] == labels[:, None]))
    for objective, runs in comparison.runs.items():
        right = runs.predictions == labels[:, None]
        lines.append(_line(f"L-BFGS-B, {CALLED[objective]}", runs.rounded, runs.less_likely_than(given), right))
    return "\n".join(lines)


def _line(title: str, bits: Tensor, fewer: int | None, right: Tensor) -> str:
    less = "" if fewer is None else f"**{100 * fewer / bits.numel():.0f}**<br>{percent_interval(fewer, bits.numel())}"
    correct = f"**{100 * right.double().mean():.0f}**<br>{percent_interval(int(right.sum()), right.numel())}"
    mean, low, high = mean_over_images(bits)
    return f"| {title} | {bits.numel()} | **{mean:.2f}**<br>[{low:.2f},&nbsp;{high:.2f}] | {less} | {correct} |"


def mean_over_images(bits: Tensor) -> tuple[float, float, float]:
    """Mean of (N, S) values and its 95 % interval over the N >= 2 images, from Student's t: (mean, low, high)."""
    if bits.ndim != 2 or len(bits) < 2:
        raise ValueError(f"need values of shape (N, S) for at least two images, not {tuple(bits.shape)}")
    means = bits.double().mean(1)
    half = float(t.ppf(0.975, len(means) - 1)) * means.std().item() / len(means) ** 0.5
    return means.mean().item(), means.mean().item() - half, means.mean().item() + half


def in_words(comparison: Comparison) -> str:
    """What a comparison found, in a few sentences of Markdown."""
    bits = {kind: of.mean().item() for kind, of in comparison.bits.items()}
    images, starts = len(comparison.labels), next(iter(comparison.runs.values())).start
    text = (f"FGSM took these {images} images from {bits['clean']:.2f} to {bits['attacked']:.2f} bits per dimension, "
            f"greedy decoding from there to {bits['greedy']:.2f}. The random starts have {starts.mean():.2f}.")  # fmt: skip
    for objective, runs in comparison.runs.items():
        failed = runs.less_likely_than(comparison.bits["attacked"])
        better = int((runs.best < comparison.bits["greedy"]).sum())
        iterations, evaluations = (of.double().mean().item() for of in (runs.iterations, runs.evaluations))
        text += (f" With the {CALLED[objective]}, L-BFGS-B ends at {runs.rounded.mean():.2f}, after {iterations:.0f} "
                 f"iterations and {evaluations:.0f} evaluations on average; {failed} of {starts.numel()} runs end less "
                 f"likely than the attacked image, and for {better} of {images} images the best run beats greedy decoding. "
                 f"Rounding changes a result by at most {runs.rounding.abs().max():.4f} bits.")  # fmt: skip
    return text
