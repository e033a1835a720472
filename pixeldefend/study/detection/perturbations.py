"""What attacks change, to the eye (figure 1) and in colour levels, and how likely what they find is after rounding."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from matplotlib.figure import Figure

from ...classifiers import predict
from ...detection import Z_95
from ..available import FIGURE_EPS, first_fooled
from ..conditions import ATTACKS, SEARCHED, Condition
from ..figures import attack_gallery, label
from ..lab import Lab

KINDS = {attack: (attack, "outward") for attack in ATTACKS} | {
    f"{label(attack)}, nearest": (attack, "nearest") for attack in SEARCHED
}  # of attacked images, by what they are called
NOT_THE_IMAGES = ("density", "precision")  # of a record's configuration: they decide its bits


def one_image(lab: Lab, attacks: Sequence[str] = ATTACKS, eps: int = FIGURE_EPS) -> Figure:
    """Figure 1: a test image that BIM fools the ResNet with, what each attack makes of it, and the classes seen."""
    conditions = {attack: Condition(lab.data_set, attack, eps) for attack in attacks}
    limits = (lab.profile.images_for(condition) for condition in conditions.values())
    place = first_fooled(lab, eps, among=min((limit for limit in limits if limit is not None), default=None))
    clean = lab.test.images[place]
    attacked = {attack: lab.attacked(condition, limit=place + 1)[place] for attack, condition in conditions.items()}
    seen = predict(lab.classifier(), torch.stack([clean, *attacked.values()]))
    captions = {kind: lab.test.classes[c] for kind, c in zip(("clean", *attacked), seen, strict=True)}
    return attack_gallery(clean, attacked, eps=eps, captions=captions)


def bits_rounded_to_nearest(lab: Lab, eps: int = FIGURE_EPS) -> dict[str, list[float]]:
    """Bits per dimension of what DeepFool and CW find, rounded to the *nearest* levels; elsewhere it is outward."""
    return {attack: nearest(lab, attack, eps)["bits_per_dim"] for attack in SEARCHED}


def nearest(lab: Lab, attack: str, eps: int = FIGURE_EPS) -> dict[str, list[float]]:
    """The measurement of that for one attack."""
    config = lab.configuration(_nearest(lab, attack, eps))
    config |= {"density": lab.density_fingerprint, "precision": lab.precision}
    return lab.measurement(nearest_name(attack, eps), config, partial(scored_nearest, lab, attack, eps))


def nearest_name(attack: str, eps: int = FIGURE_EPS) -> str:
    """Of the measurement `nearest`."""
    return f"bits-{attack}-eps{eps}-rounding-nearest"


def scored_nearest(lab: Lab, attack: str, eps: int = FIGURE_EPS) -> dict[str, list[float]]:
    """What `nearest` gives, computed."""
    bits = lab.density.bits_per_dim(lab.attacked(_nearest(lab, attack, eps)), precision=lab.precision)
    return {"bits_per_dim": [round(value, 6) for value in bits.double().tolist()]}


def _nearest(lab: Lab, attack: str, eps: int) -> Condition:
    return Condition(lab.data_set, attack, eps, rounding="nearest")


def changes(lab: Lab, eps: int = FIGURE_EPS) -> dict[str, dict[str, list[float]]]:
    """What each attack changed, per image: the "mean" absolute change of its sub-pixels and the "largest", in levels.

    The keys are the paper's attacks, and, of those that search, "<name>, nearest" for the other rounding.
    """
    configs = {kind: lab.configuration(condition) for kind, condition in _compared(lab, eps).items()}
    config = {kind: {key: of[key] for key in of if key not in NOT_THE_IMAGES} for kind, of in configs.items()}
    return lab.measurement(changes_name(eps), config, partial(measured_changes, lab, eps))


def changes_name(eps: int = FIGURE_EPS) -> str:
    """Of the measurement of `changes`."""
    return f"changes-eps{eps}"


def measured_changes(lab: Lab, eps: int = FIGURE_EPS) -> dict[str, dict[str, list[float]]]:
    """What `changes` gives, computed."""
    found = {}
    for kind, condition in _compared(lab, eps).items():
        attacked = lab.attacked(condition).int()
        levels = (attacked - lab.test.images[: len(attacked)].int()).abs().flatten(1)
        means = [round(value, 4) for value in levels.double().mean(1).tolist()]
        found[kind] = {"mean": means, "largest": levels.amax(1).tolist()}
    return found


def _compared(lab: Lab, eps: int) -> dict[str, Condition]:
    return {kind: Condition(lab.data_set, attack, eps, rounding=rounding) for kind, (attack, rounding) in KINDS.items()}


def changes_table(found: Mapping[str, Mapping[str, list[float]]]) -> str:
    """A Markdown table of `changes`: means over the images, with 95 % intervals from the normal approximation."""
    lines = ["| attack | n | mean change | largest change |", "|---|--:|:-:|:-:|"]
    for kind, of in found.items():
        cells = []
        for values in (torch.tensor(of[name], dtype=torch.float64) for name in ("mean", "largest")):
            half = Z_95 * values.std().item() / len(values) ** 0.5
            cells.append(f"**{values.mean():.2f}**<br>[{values.mean() - half:.2f},&nbsp;{values.mean() + half:.2f}]")
        lines.append(f"| {label(kind)} | {len(of['mean'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
