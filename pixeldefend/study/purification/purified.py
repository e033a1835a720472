"""What purification does to images, to their p-values and to the classes seen: figures 4, 6b, 7, 10 and 11 of the paper."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...classifiers import predict
from ...defenses import PixelDefend
from ...detection import ROC, p_values, roc
from ...images import Images
from ..available import first_fooled
from ..conditions import ATTACKS, EPS_DEFEND, LOWER_ROWS, Condition, attacks_with_eps
from ..detection.tables import LEVELS, auc_cell, flagged_cell, paired
from ..figures import label
from ..lab import Lab
from ..tables import percent_interval

WRONG = "\N{BALLOT X}\N{NO-BREAK SPACE}"  # before the name of a wrong class
TOO_LIKELY = 0.95  # a p-value
Scores = dict[tuple[str, int], Tensor]  # by attack and eps; ("clean", 0) too


@dataclass(frozen=True)
class Panel:
    """Rows of images as `figures.draw_gallery` takes them: images and captions by row, and the columns' titles."""

    rows: dict[str, Tensor]
    captions: dict[str, list[str]]
    titles: list[str]

    def right(self, row: str) -> int:
        """How many of a row's captions name the right class."""
        return sum(not text.startswith(WRONG) for text in self.captions[row])


def class_names(data: Images, predictions: Tensor, labels: Tensor) -> list[str]:
    """Names of predicted classes, (N,); `WRONG` stands before those that are not the label."""
    pairs = zip(predictions.tolist(), labels.tolist(), strict=True)
    return [("" if seen == true else WRONG) + data.classes[seen] for seen, true in pairs]


def one_image(lab: Lab, eps: int) -> Panel:
    """Figure 4: a test image (see `first_fooled`) and what each attack makes of it, above; purified, below."""
    place = first_fooled(lab, eps)
    conditions = [Condition(lab.data_set)] + [Condition(lab.data_set, attack, eps) for attack in ATTACKS]
    given = torch.stack([lab.attacked(condition, limit=place + 1)[place] for condition in conditions])
    labels = lab.test.labels[place].expand(len(given))
    return _panel(lab, {"before": given, "purified": _purify(lab, given)}, labels, [label(c.attack) for c in conditions])


def gallery(lab: Lab, attack: str, eps: int) -> Panel:
    """Figures 10 and 11: the first test images, clean, attacked, and purified."""
    count = lab.profile.gallery
    given = lab.attacked(Condition(lab.data_set, attack, eps), limit=count)
    rows = {"clean": lab.test.images[:count], label(attack): given, "purified": _purify(lab, given)}
    return _panel(lab, rows, lab.test.labels[:count], [])


def _purify(lab: Lab, images: Tensor) -> Tensor:
    return PixelDefend(lab.density, eps_defend=EPS_DEFEND[lab.data_set], precision=lab.precision)(images)


def _panel(lab: Lab, rows: dict[str, Tensor], labels: Tensor, titles: list[str]) -> Panel:
    net = lab.classifier()
    captions = {title: class_names(lab.test, predict(net, images), labels) for title, images in rows.items()}
    return Panel(rows, captions, titles)


def bits_before_and_after(lab: Lab) -> tuple[Scores, Scores]:
    """Bits per dimension of clean and attacked test images, (N,), and of the same purified; from the records."""
    before = {cell: lab.record(Condition(lab.data_set, *cell)).bits for cell in attacks_with_eps(lab.data_set)}
    return before, {(attack, eps): record.bits for (_, attack, eps), record in lab.cells(LOWER_ROWS[:1]).items()}


def p_values_before_and_after(lab: Lab) -> tuple[Scores, Scores]:
    """The same as p-values, against the held-out images."""
    reference = -lab.reference("held-out").bits
    before, after = bits_before_and_after(lab)
    return tuple({cell: p_values(-bits, reference) for cell, bits in scores.items()} for scores in (before, after))


def purified_detection_table(before: Mapping, after: Mapping) -> str:
    """Figure 6b in numbers, as a Markdown table: p-values of clean and attacked images, before and after purification.

    The negatives are the clean images as they are, for each attack those that it was given. The last two columns ask other
    questions: how many purified images are *too* likely, with a p-value above `TOO_LIKELY`; and whether they can be told
    from the same images, not attacked and purified.
    Both arguments are as `p_values_before_and_after` gives them.
    """
    heads = ["images", "n", "AUC<br>before", "AUC<br>purified"]
    heads += [f"found in %,<br>p&nbsp;≤&nbsp;{level:g}" for level in LEVELS]
    heads += [f"too likely in %,<br>p&nbsp;>&nbsp;{TOO_LIKELY:g}", "AUC against<br>purified clean"]
    lines = ["| " + " | ".join(heads) + " |", "|---|--:|" + ":-:|" * (len(heads) - 2)]
    for (kind, eps), values in after.items():
        clean = paired(before["clean", 0], values)
        cells = [label(kind) + (f", eps {eps}" if eps else ""), f"{len(values)}"]
        cells += [auc_cell(clean, before[kind, eps]) if eps else "", auc_cell(clean, values)]
        cells += [flagged_cell(clean, values, level=level) for level in LEVELS]
        likely = int((values > TOO_LIKELY).sum())
        cells.append(f"**{100 * likely / len(values):.1f}**<br>{percent_interval(likely, len(values))}")
        cells.append(auc_cell(*behind(after, kind, eps)) if eps else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def behind(after: Mapping, attack: str, eps: int) -> tuple[Tensor, Tensor]:
    """Purified scores of clean images and of the same after an attack: what a detector behind the purifier would see."""
    attacked = after[attack, eps]
    return paired(after["clean", 0], attacked), attacked


def roc_after(before: Mapping, after: Mapping, eps: int) -> dict[str, ROC]:
    """Figure 6b: ROC curves of purified images, clean and attacked, against clean images that were not purified."""
    kinds = {"clean": 0} | dict.fromkeys(ATTACKS, eps)
    return {kind: roc(paired(before["clean", 0], after[kind, of]), after[kind, of]) for kind, of in kinds.items()}


def in_words(before: Mapping, after: Mapping, eps: int) -> str:
    """What purification does to p-values, in a few sentences of Markdown; arguments as for `purified_detection_table`."""
    kinds = [(attack, eps) for attack in ATTACKS]

    def percent(shares: list[Tensor]) -> str:
        low, high = (100 * end(share.double().mean().item() for share in shares) for end in (min, max))
        return f"{low:.0f} to {high:.0f} %"

    return (
        f"Before purification, {percent([before[kind] <= 0.05 for kind in kinds])} of the images (according to the attack) "
        f"have a p-value of at most 0.05, after it {percent([after[k] <= 0.05 for k in kinds])}. "
        f"Above {TOO_LIKELY:g} lie {percent([after[kind] > TOO_LIKELY for kind in kinds])} of the purified images, and "
        f"{100 * (after['clean', 0] > TOO_LIKELY).double().mean():.0f} % of the purified clean ones; of clean images as "
        f"they are, {100 * (before['clean', 0] > TOO_LIKELY).double().mean():.0f} %."
    )
