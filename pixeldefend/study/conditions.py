"""The paper's grid (Tables 1 and 2): the only module that knows it."""

import json
from dataclasses import dataclass
from functools import cache

from .. import paths

EPS_ATTACK = {"fashion-mnist": (8, 25), "cifar10": (2, 8, 16)}
EPS_DEFEND = {"fashion-mnist": 32, "cifar10": 16}
PAPER_TABLE = {"fashion-mnist": "table_1", "cifar10": "table_2"}
ATTACKS = ("rand", "fgsm", "bim")  # those built so far, in the order of the paper's columns
REFERENCE_IMAGES = {"train": 5_000, "held-out": 5_000}  # scored once: the training images are not in the repository
NAMES = {"clean": "clean", "rand": "RAND", "fgsm": "FGSM", "bim": "BIM"}


@dataclass(frozen=True)
class Profile:
    """How much of the study is run: the first ``images`` test images (``None``: all of them)."""

    images: int | None
    gallery: int  # images in the galleries


PROFILES = {
    "smoke": Profile(images=8, gallery=4),  # tests: does everything run?
    "laptop": Profile(images=1000, gallery=10),  # the default: two cores, minutes
    "paper": Profile(images=None, gallery=10),  # all test images
}


@dataclass(frozen=True)
class Condition:
    """One cell of a table: which images a classifier sees.

    ``attack`` is "clean" or a key of `pixeldefend.attacks.ATTACKS`; ``eps`` and ``eps_defend`` are colour levels;
    ``defence`` is "none" or "pixeldefend". The attack is on the undefended classifier, as in the paper.
    """

    data_set: str
    attack: str = "clean"
    eps: int = 0
    defence: str = "none"
    eps_defend: int = 0
    network: str = "resnet"
    training: str = "normal"

    @property
    def name(self) -> str:
        parts = [self.data_set, self.network, self.training, self.attack]
        parts += [f"eps{self.eps}"] if self.attack != "clean" else []
        parts += [f"{self.defence}{self.eps_defend}"] if self.defence != "none" else []
        return "-".join(parts)


def attacks_with_eps(data_set: str) -> list[tuple[str, int]]:
    """Clean, then every attack at every eps of the paper's table for the data set."""
    return [("clean", 0)] + [(attack, eps) for attack in ATTACKS for eps in EPS_ATTACK[data_set]]


@cache
def _paper_tables() -> dict:
    return json.loads((paths.DATA / "paper" / "tables.json").read_text())


def paper_accuracy(condition: Condition, *, eps: int) -> float | None:
    """The paper's accuracy in percent for a condition in the column ``eps``, or ``None`` where it gives none.

    The paper repeats clean accuracy in every column; ``eps`` says which one is meant.
    """
    wanted = {
        "network": condition.network,
        "training": condition.training,
        "defence": condition.defence,
        "attack": condition.attack,
        "eps_attack": eps,
    }
    cells = _paper_tables()[PAPER_TABLE[condition.data_set]]["cells"]
    found = [cell["accuracy_percent"] for cell in cells if all(cell[key] == value for key, value in wanted.items())]
    return found[0] if found else None
