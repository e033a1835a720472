"""The paper's grid (Tables 1 and 2): the only module that knows it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from .. import paths
from ..attacks.levels import ROUNDINGS as LEVEL_ROUNDINGS
from ..checks import check_choice

EPS_ATTACK = {"fashion-mnist": (8, 25), "cifar10": (2, 8, 16)}
EPS_DEFEND = {"fashion-mnist": 32, "cifar10": 16}
SQUEEZE_LEVELS = {"fashion-mnist": 8, "cifar10": 32}  # appendix B
DENSITIES = {"fashion-mnist": ("fashion-mnist",), "cifar10": ("cifar10", "cifar10-small")}  # the best, and largest, first
PAPER_TABLE = {"fashion-mnist": "table_1", "cifar10": "table_2"}
ATTACKS = ("rand", "fgsm", "bim", "deepfool", "carlini_wagner")  # in the order of the paper's columns
TUNED = "carlini_wagner_tuned"  # our own column: the last attack with setting="tuned"
ALL_ATTACKS = (*ATTACKS, TUNED)
SEARCHED = ("deepfool", "carlini_wagner")  # what their search finds does not depend on eps
DEAR = (*SEARCHED, TUNED)  # hundreds of gradients an image
THROUGH_MEDIAN = ("fgsm", "bim", "deepfool", TUNED)  # attacks on feature squeezing that know of it: see `MedianFiltered`
ADAPTIVE = "adaptive-pixeldefend"
PURIFYING = ("pixeldefend", ADAPTIVE)
DEFENCES = ("none", "feature-squeezing", *PURIFYING)
ROUNDINGS = (*LEVEL_ROUNDINGS, "none")  # of what a search found, to colour levels; "none": floats
REFERENCE_IMAGES = {"train": None, "held-out": 5_000}  # None: all; scored once: they are not in the repository
PAPER_THRESHOLD = {"fashion-mnist": 1.8, "cifar10": 3.2}  # appendix B; bits per dimension
THRESHOLD_IMAGES = 500  # held out; for the threshold of adaptive PixelDefend
NAMES = {
    "clean": "clean",
    "rand": "RAND",
    "fgsm": "FGSM",
    "bim": "BIM",
    "deepfool": "DeepFool",
    "carlini_wagner": "CW",
    TUNED: "CW, tuned",
}


@dataclass(frozen=True)
class Profile:
    """How much of the study is run: the first ``images`` test images, ``dear_images`` where `Condition.is_dear` (``None``:
    all)."""

    images: int | None
    dear_images: int | None
    gallery: int  # images in the galleries

    def images_for(self, condition: "Condition") -> int | None:
        return self.dear_images if condition.is_dear else self.images


PROFILES = {
    "smoke": Profile(images=8, dear_images=2, gallery=4),  # tests: does everything run?
    "laptop": Profile(images=1000, dear_images=200, gallery=10),  # the default: two cores
    "paper": Profile(images=None, dear_images=None, gallery=10),  # all test images
}


def densities_of(profile: str, data_set: str) -> Sequence[str]:
    """The densities that a profile would work with, first choice first: "paper" with the best, others what a CPU can run."""
    return DENSITIES[data_set] if profile == "paper" else DENSITIES[data_set][::-1]


@dataclass(frozen=True)
class Condition:
    """One cell of a table: which images a classifier sees.

    The attack is on the undefended classifier, as in the paper; but against feature squeezing those in `THROUGH_MEDIAN`
    know the median filter, as in the authors' code. RAND needs no gradient, and their CW ignores the filter.

    Args:
        attack: "clean" or one of `ALL_ATTACKS`.
        eps: colour levels; 0 for "clean".
        defence: "none", "feature-squeezing" (to `SQUEEZE_LEVELS` colours), "pixeldefend" (with ``eps_defend``) or
            "adaptive-pixeldefend" (the same, but only where an image exceeds a threshold: see `adaptive`).
        eps_defend: colour levels; 0 where nothing is purified.
        rounding: what becomes of the floats that the attacks in `SEARCHED` find: levels, rounded away from the original
            image ("outward") or to the nearest one, or the floats themselves, only clipped to eps ("none"; what the
            authors evaluate).

    Raises ``ValueError`` for an unknown name and for a combination that means nothing.
    """

    data_set: str
    attack: str = "clean"
    eps: int = 0
    defence: str = "none"
    eps_defend: int = 0
    network: str = "resnet"
    training: str = "normal"
    rounding: str = "outward"

    def __post_init__(self):
        check_choice(self.data_set, EPS_ATTACK, name="data set")
        check_choice(self.attack, ("clean", *ALL_ATTACKS), name="attack")
        check_choice(self.defence, DEFENCES, name="defence")
        check_choice(self.rounding, ROUNDINGS, name="rounding")
        if self.eps and self.attack == "clean":
            raise ValueError(f"clean images have eps 0, not {self.eps}")
        if self.eps_defend and self.defence not in PURIFYING:
            raise ValueError(f"eps_defend={self.eps_defend} means nothing for the defence {self.defence!r}")
        if self.rounding != "outward" and self.attack not in SEARCHED:
            raise ValueError(f"rounding={self.rounding!r} is for {' and '.join(SEARCHED)}, not for {self.attack}")
        if self.rounding == "none" and self.defence != "none":
            raise ValueError(f"{self.defence} works on colour levels; it has no rounding='none'")

    @property
    def name(self) -> str:
        """Distinct for distinct conditions; a record's file is named after it."""
        parts = [self.data_set, self.network, self.training, self.attack]
        parts += [f"eps{self.eps}"] if self.eps else []
        parts += [f"rounding-{self.rounding}"] if self.rounding != "outward" else []
        parts += [self.defence + (f"{self.eps_defend}" if self.eps_defend else "")] if self.defence != "none" else []
        return "-".join(parts)

    @property
    def is_dear(self) -> bool:
        """Whether a profile takes fewer images: for attacks in `DEAR`."""
        return self.attack in DEAR

    @property
    def through_median(self) -> bool:
        """Whether the attack is on the classifier behind the median filter."""
        return self.defence == "feature-squeezing" and self.attack in THROUGH_MEDIAN

    @property
    def wants_bits(self) -> bool:
        """Whether a record holds bits per dimension: after purification, and where attacks are to be detected."""
        detection = self.defence == "none" and self.rounding == "outward" and self.network == "resnet"
        return self.defence in PURIFYING or (detection and self.training in ("normal", "adversarial-fgsm"))


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables: a classifier, and what stands before it."""

    title: str
    network: str
    training: str
    defence: str = "none"

    def condition(self, data_set: str, attack: str = "clean", eps: int = 0) -> Condition:
        """The row's cell for an attack; PixelDefend with the paper's eps_defend for the data set."""
        eps_defend = EPS_DEFEND[data_set] if self.defence in PURIFYING else 0
        return Condition(data_set, attack, eps, self.defence, eps_defend, self.network, self.training)


UPPER_ROWS = (  # the baselines
    Row("ResNet, normal", "resnet", "normal"),
    Row("VGG, normal", "vgg", "normal"),
    Row("ResNet, adversarial FGSM", "resnet", "adversarial-fgsm"),
    Row("ResNet, adversarial BIM", "resnet", "adversarial-bim"),
    Row("ResNet, label smoothing", "resnet", "label-smoothing"),
    Row("ResNet, feature squeezing", "resnet", "normal", "feature-squeezing"),
    Row("ResNet, adversarial FGSM + feature squeezing", "resnet", "adversarial-fgsm", "feature-squeezing"),
)
LOWER_ROWS = (
    Row("ResNet, normal + PixelDefend", "resnet", "normal", "pixeldefend"),
    Row("VGG, normal + PixelDefend", "vgg", "normal", "pixeldefend"),
    Row("ResNet, adversarial FGSM + PixelDefend", "resnet", "adversarial-fgsm", "pixeldefend"),
    Row("ResNet, adversarial FGSM + adaptive PixelDefend", "resnet", "adversarial-fgsm", ADAPTIVE),
)
ROWS = UPPER_ROWS + LOWER_ROWS


def attacks_with_eps(data_set: str, attacks: Sequence[str] = ATTACKS) -> list[tuple[str, int]]:
    """Clean, then every one of ``attacks`` at every eps of the paper's table for the data set."""
    return [("clean", 0)] + [(attack, eps) for attack in attacks for eps in EPS_ATTACK[data_set]]


@cache
def _paper_tables() -> dict:
    return json.loads((paths.DATA / "paper" / "tables.json").read_text())


def paper_accuracy(condition: Condition, *, eps: int, strongest: bool = False) -> float | None:
    """The paper's accuracy in percent for a condition in the column ``eps``, or ``None`` where it gives none.

    The paper repeats clean accuracy in every column; ``eps`` says which one is meant. With ``strongest`` it is the
    number of the last column, whatever the condition's attack.
    """
    wanted = {
        "network": condition.network,
        "training": condition.training,
        "defence": condition.defence,
        "attack": "strongest" if strongest else condition.attack,
        "eps_attack": eps,
    }
    cells = _paper_tables()[PAPER_TABLE[condition.data_set]]["cells"]
    found = [cell["accuracy_percent"] for cell in cells if all(cell[key] == value for key, value in wanted.items())]
    return found[0] if found else None
