"""What the chapters on likelihoods can show: the data sets whose density and classifier exist, and their records."""

from collections.abc import Sequence

from torch import Tensor

from .conditions import ATTACKS, EPS_ATTACK, ROWS, Condition
from .lab import Lab
from .records import Record

FIGURE_EPS = 8  # of the paper's figures 2, 3 and 6, and of its appendix A
TITLES = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
PREFIXES = {"fashion-mnist": "", "cifar10": "cifar10_"}  # of the names under which chapters glue a data set's numbers


def classified_labs(profile: str = "laptop", **options) -> dict[str, Lab]:
    """A `Lab` for each data set that has the normally trained ResNet; ``options`` as for `Lab`."""
    labs = {data_set: Lab(data_set, profile, **options) for data_set in EPS_ATTACK}
    return {data_set: lab for data_set, lab in labs.items() if not lab.missing(ROWS[:1])}


def scored_labs(profile: str = "laptop", **options) -> dict[str, Lab]:
    """Those of `classified_labs` that have a density."""
    return {data_set: lab for data_set, lab in classified_labs(profile, **options).items() if lab.has_density}


def shown(labs: dict[str, Lab]) -> str:
    """What a chapter's numbers rest on: images of which data sets, and which of these are left out."""
    titles: dict[str, list[str]] = {}
    for data_set, lab in labs.items():
        titles.setdefault(_first(lab), []).append(TITLES[data_set])
    counts = [f"{first} test images of {' and of '.join(of)}" for first, of in titles.items()]
    text = f"The numbers of this chapter rest on {' and '.join(counts)}, or on fewer where they say so." if labs else ""
    if any(lab.profile_name == "smoke" for lab in labs.values()):
        text += " **So few show that everything runs, and nothing else: the text does not fit them.**"
    absent = [TITLES[data_set] for data_set in EPS_ATTACK if data_set not in labs]
    if absent:
        left, them = ("is", "it") if len(absent) == 1 else ("are", "them")
        text += f" {' and '.join(absent)} {left} left out: this book has no density of {them}, or no ResNet."
    return text


def _first(lab: Lab) -> str:
    count = lab.profile.images
    return "all" if count is None else f"the first {count:,}"


def kinds_of_image(lab: Lab, eps: int, attacks: Sequence[str] = ATTACKS) -> dict[str, Record]:
    """The records of the undefended ResNet: clean images, then those of each attack with ``eps``."""
    clean = {"clean": lab.record(Condition(lab.data_set))}
    return clean | {attack: lab.record(Condition(lab.data_set, attack, eps)) for attack in attacks}


def bits_of(records: dict[str, Record]) -> dict[str, Tensor]:
    """Bits per dimension of each kind of image."""
    return {kind: record.bits for kind, record in records.items()}


def first_fooled(lab: Lab, eps: int, *, among: int | None = None) -> int:
    """The first of ``among`` test images that the ResNet gets right and BIM makes it get wrong; 0 if there is none."""
    clean, attacked = lab.record(Condition(lab.data_set)), lab.record(Condition(lab.data_set, "bim", eps))
    return int((clean.correct & ~attacked.correct)[:among].int().argmax())
