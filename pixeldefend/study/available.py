"""The data sets that a chapter can show: those whose density and classifier exist."""

from .conditions import EPS_ATTACK, ROWS
from .lab import Lab

TITLES = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}


def scored_labs(profile: str = "laptop", **options) -> dict[str, Lab]:
    """A `Lab` for each data set that has a density and the normally trained ResNet; ``options`` as for `Lab`."""
    labs = {data_set: Lab(data_set, profile, **options) for data_set in EPS_ATTACK}
    return {data_set: lab for data_set, lab in labs.items() if lab.has_density and not lab.missing(ROWS[:1])}


def shown(labs: dict[str, Lab]) -> str:
    """A sentence that says which data sets are shown, and which are left out."""
    names = " and ".join(TITLES[data_set] for data_set in labs) or "No data set"
    absent = [TITLES[data_set] for data_set in EPS_ATTACK if data_set not in labs]
    text = f"{names} {'are' if len(labs) > 1 else 'is'} shown."
    if absent:
        text += f" {' and '.join(absent)} is left out: its density or its ResNet is not shipped with this version of the book."
    return text
