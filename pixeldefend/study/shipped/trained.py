"""What was trained and ships with the book: densities with their training curves and samples, and the classifiers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import paths
from ...classifiers import saved_classifiers
from ...classifiers.store import SIZES, build_classifier, classifier_name
from ...images import DATA_SETS, HELD_OUT, Images
from ...pixelcnn import PixelCNN, shipped_densities
from ...weights import BEFORE, CONFIG, EARLIER, LOG, SECONDS_BEFORE, read_scores
from ..available import TITLES
from ..claims.judging import printed
from ..claims.likelihood import PAPER_BITS
from ..conditions import DENSITIES, UPPER_ROWS, Row
from ..endtoend.attacks import packed, unpacked
from ..lab import Lab
from ..tables import percent_interval

SEED = 0  # of the samples


@dataclass(frozen=True)
class Density:
    """A shipped density: what its folder says of it. ``log`` has an entry for each of a number of steps."""

    name: str
    data_set: str
    parameters: int
    filters: int
    blocks: int
    scores: dict
    log: list[dict]

    @property
    def before(self) -> int:
        """Images that the weights had seen in earlier runs."""
        return self.scores.get(BEFORE, 0)

    @property
    def images(self) -> int:
        return self.before + self.scores["images_seen"]

    @property
    def epochs(self) -> float:
        return self.images / self.scores["settings"]["training_images"]

    @property
    def hours(self) -> float:
        return (self.scores["training_seconds"] + self.scores.get(SECONDS_BEFORE, 0)) / 3600

    @property
    def history(self) -> str:
        """How it came about, as the end of a sentence on its training."""
        optimizer = "Muon and Adam" if self.scores["settings"].get("optimizer") == "muon" else "Adam"
        if not self.before:
            return f"in one run, with {optimizer}"
        runs = len(self.scores.get(EARLIER, ()))
        earlier = f"{runs} earlier runs" if runs > 1 else "an earlier run"
        return f"the first {self.before:,} of them in {earlier}, the others with {optimizer}"

    @property
    def quarters(self) -> list[float]:
        """Mean bits per dimension of the training images met in each quarter of the last run, by images."""
        seen = [entry["images"] / self.log[-1]["images"] for entry in self.log]
        bits = [[e["bits_per_dim"] for e, s in zip(self.log, seen, strict=True) if q < 4 * s <= q + 1] for q in range(4)]
        return [sum(values) / len(values) if values else float("nan") for values in bits]


def densities() -> list[Density]:
    """The shipped densities, those of Fashion-MNIST first."""
    found = []
    for data_set in TITLES:
        for name in (name for name in DENSITIES[data_set] if name in shipped_densities()):
            folder = paths.WEIGHTS / "pixelcnn" / name
            log = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
            model = PixelCNN.from_pretrained(name)
            parameters = sum(p.numel() for p in model.parameters())
            size = model.network.config
            scores = read_scores(folder)
            found.append(Density(name, data_set, parameters, size.filters, size.blocks, scores, log))
    return found


def density_table(found: Sequence[Density]) -> str:
    """Sizes, lengths of training and bits per dimension on the test images with 95 % intervals, in Markdown."""
    lines = ["| density | filters | blocks | parameters | images seen | epochs | hours | bits per dimension | n | paper |",
             "|---|--:|--:|--:|--:|--:|--:|:-:|--:|--:|"]  # fmt: skip
    for of in found:
        scores = of.scores
        mean, half = scores["test_bits_per_dim"], 1.96 * scores["test_bits_per_dim_std"] / scores["test_images"] ** 0.5
        cells = [f"{TITLES[of.data_set]} (`{of.name}`)", of.filters, of.blocks, f"{of.parameters:,}",
                 f"{of.images:,}", f"{of.epochs:.1f}", f"{of.hours:.1f}",
                 f"**{mean:.3f}**<br>[{mean - half:.3f},&nbsp;{mean + half:.3f}]", f"{scores['test_images']:,}",
                 PAPER_BITS[of.data_set]]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def samples(lab: Lab, count: int) -> Tensor:
    """Images drawn from a lab's density, always the same: uint8 (count, C, H, W), from disk where they are."""
    config = {"count": count, "seed": SEED, "precision": lab.precision, "density": lab.density_fingerprint}

    def draw() -> dict:
        generator = torch.Generator().manual_seed(SEED)
        return packed(lab.density.sample(count, generator=generator, precision=lab.precision))

    return unpacked(lab.measurement("samples", config, draw))


def rows_of_samples(labs: Iterable[Lab]) -> dict[str, Tensor]:
    """For `figures.gallery`: of each lab that has a density, a row of test images above two of samples."""
    rows = {}
    for lab in labs:
        if lab.has_density:
            n, title = lab.profile.gallery, TITLES[lab.data_set]
            drawn = samples(lab, 2 * n)
            rows[f"{title}:\ntrue"] = lab.test.images[:n]
            rows[f"{title}:\nsampled"] = drawn[:n]
            rows[f"{title}:\nsampled "] = drawn[n:]  # a title of its own
    return rows


def one_of_each_class(data: Images) -> Tensor:
    """The first image of each class: uint8 (number of classes, C, H, W). Raises ``ValueError`` where a class has none."""
    firsts = []
    for label, name in enumerate(data.classes):
        found = (data.labels == label).nonzero()
        if not len(found):
            raise ValueError(f"no {name} among {len(data)} images of {data.name}")
        firsts.append(int(found[0]))
    return data.images[firsts]


def data_table(test: Mapping[str, Images]) -> str:
    """The data sets in Markdown: image size, images for training, held out and for the report."""
    lines = ["| data set | an image | sub-pixels | trained on | held out | test images | of them in the repository |",
             "|---|---|--:|--:|--:|--:|--:|"]  # fmt: skip
    for name in test:
        known = DATA_SETS[name]
        channels, height, width = known.shape
        size = channels * height * width
        cells = [TITLES[name], f"{height} x {width}, {'grey' if channels == 1 else 'colour'}", f"{size:,}",
                 f"{known.sizes['train'] - HELD_OUT:,}", f"{HELD_OUT:,}", f"{known.sizes['test']:,}",
                 f"{known.embedded['test']:,}"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def classifier_table() -> str:
    """Every classifier of the paper for both data sets, in Markdown: accuracy on the test images and the paper's."""
    lines = ["| data set | network | training | parameters | epochs | accuracy in % | n | paper |",
             "|---|---|---|--:|--:|:-:|--:|--:|"]  # fmt: skip
    for data_set in TITLES:
        for row in (row for row in UPPER_ROWS if row.defence == "none"):
            paper = "/".join(dict.fromkeys(printed(data_set, row).split("/")))
            cells = [TITLES[data_set], {"resnet": "ResNet", "vgg": "VGG"}[row.network], row.training.replace("-", " "),
                     f"{_parameters(data_set, row):,}", *_trained(data_set, row), paper]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _parameters(data_set: str, row: Row) -> int:
    return sum(p.numel() for p in build_classifier(row.network, SIZES[data_set, row.network]).parameters())


def _trained(data_set: str, row: Row) -> tuple[str, str, str]:
    """Epochs, accuracy and number of test images."""
    name = classifier_name(data_set, row.network, row.training)
    if name not in saved_classifiers():
        return "-", "not trained", "-"
    folder = paths.WEIGHTS / "classifiers" / name
    scores = read_scores(folder)
    settings = json.loads((folder / CONFIG).read_text())["settings"]
    images = scores["test_images"]
    right = round(scores["test_accuracy"] * images)
    more = " more" if settings.get("start") else ""
    if BEFORE in scores:
        more += f", {(scores['images_seen'] + scores[BEFORE]) / settings['training_images']:.0f} in all"
    return f"{settings['epochs']}{more}", f"**{100 * right / images:.1f}** {percent_interval(right, images)}", f"{images:,}"
