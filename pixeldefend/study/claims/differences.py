"""Where the paper and the authors' released code differ, what is followed here, and what the choice changes.

The paper is followed in most places where it is not silent; each entry says which side is. What a choice
changes is told only where records on disk have measured it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scipy.stats import kstest

from ...detection import p_values
from ..available import TITLES
from ..conditions import EPS_ATTACK, NAMES, SEARCHED, TUNED, UPPER_ROWS, Condition
from ..lab import Lab
from . import choices
from .judging import NotRun, accuracy, cell, reference, scored, share

NORMAL = UPPER_ROWS[0]
EPS = choices.EPS


def _nothing(lab: Lab) -> str:
    raise NotRun("a measurement")


@dataclass(frozen=True)
class Difference:
    """A place where paper and code differ, or where the paper is silent.

    ``effect`` tells in Markdown what the choice changes, from the records of a lab; it may raise `NotRun`.
    """

    place: str
    paper: str
    code: str
    here: str
    effect: Callable[[Lab], str] = _nothing


def _rounding(lab: Lab) -> str:
    cell(lab, NORMAL)
    texts = []
    for attack in SEARCHED:
        found = {rounding: lab.record(Condition(lab.data_set, attack, EPS, rounding=rounding))
                 for rounding in ("none", "nearest", "outward")}  # fmt: skip
        values = ", ".join(f"{name} {accuracy(record)}" for name, record in
                           zip(("floats", "nearest", "outward"), found.values(), strict=True))  # fmt: skip
        texts.append(f"{NAMES[attack]}, no defence: {values} (n&nbsp;=&nbsp;{len(found['none'])})")
    return "<br>".join(texts)


def _weak_search(lab: Lab) -> str:
    published, tuned = (cell(lab, NORMAL, attack, EPS) for attack in ("carlini_wagner", TUNED))
    return f"no defence: {accuracy(published)} as released, {accuracy(tuned)} tuned (n&nbsp;=&nbsp;{len(tuned)})"


def _calibration(lab: Lab) -> str:
    clean = scored(lab, NORMAL)
    texts = []
    for split in ("train", "held-out"):
        values = p_values(-clean.bits, -reference(lab, split).bits)
        alarms = int((values <= 0.05).sum())
        distance = kstest(values.numpy(), "uniform").statistic
        texts.append(f"{split}: {share(alarms, len(values))} of the clean images have p at most 0.05, distance from uniform "
                     f"{distance:.3f}")  # fmt: skip
    return "<br>".join([*texts, f"(n&nbsp;=&nbsp;{len(clean)})"])


def _choice(lab: Lab, name: str) -> str:
    """The accuracy under one side of a choice that `choices` measures."""
    scored(lab, NORMAL)  # the density and the classifier exist
    found = choices.measured(lab)
    right = sum(a == b for a, b in zip(found[name], found["labels"], strict=True))
    return share(right, len(found["labels"]))


def _truncation(lab: Lab) -> str:
    return f"BIM, purified: {_choice(lab, 'purified')}, truncated {_choice(lab, 'truncated')}{_count(lab)}"


def _labels(lab: Lab) -> str:
    texts = [f"{NAMES[a]}, no defence: true {_choice(lab, f'{a} true')}, predicted {_choice(lab, f'{a} predicted')}"
             for a in choices.ATTACKS]  # fmt: skip
    return "<br>".join(texts) + _count(lab)


def _knowledge(lab: Lab) -> str:
    texts = []
    for attack in choices.ATTACKS:
        unaware = _choice(lab, f"squeezed {attack}")
        knowing = cell(lab, UPPER_ROWS[5], attack, EPS)
        count = len(choices.measured(lab)["labels"])
        right = int(knowing.correct[:count].sum())
        texts.append(f"{NAMES[attack]}, squeezed: knowing {share(right, count)}, not knowing {unaware}")
    return "<br>".join(texts) + _count(lab)


def _count(lab: Lab) -> str:
    return f" (n&nbsp;=&nbsp;{len(choices.measured(lab)['labels'])})"


def _squeezing(lab: Lab) -> str:
    before, after = (cell(lab, row) for row in (NORMAL, UPPER_ROWS[5]))
    return f"clean images: {accuracy(before)} to {accuracy(after)} (n&nbsp;=&nbsp;{len(after)})"


def _training_eps(lab: Lab) -> str:
    if lab.data_set != "fashion-mnist":
        raise NotRun("a choice")
    texts = [f"eps {eps}: {accuracy(cell(lab, UPPER_ROWS[2], 'fgsm', eps))}" for eps in EPS_ATTACK[lab.data_set]]
    return f"FGSM against the ResNet trained with it: {', '.join(texts)}; the other deviation was not trained"


DIFFERENCES = (
    Difference("head of the PixelCNN", "a 256-way softmax",
               "ten logistics, integrated over 256 bins; each channel mixes them on its own",
               "the code's family, with exact bin masses"),
    Difference("training images, Fashion-MNIST", "60,000", "55,000: the loader sets 5,000 aside, which are never used",
               "55,000; the 5,000 others are the held-out images"),
    Difference("length of the density's training", "not stated", "at most 5,000 epochs, no criterion",
               "what two processor cores allowed: see the model cards"),
    Difference("optimiser of the density", "not stated", "Adam, learning rate 0.001",
               "Muon for the directions of the hidden layers, Adam for the rest: see the model cards"),
    Difference("dropout of the density", "not stated", "0.5", "none: the training is too short to overfit"),
    Difference("depth of the ResNet", "62 layers, 10 units a stage", "32 layers, 5 units a stage", "the paper"),
    Difference("VGG", "table: 4 blocks, 10 convolutions from 16 maps; text: 16 layers",
               "5 blocks, 13 convolutions from 64 maps", "the paper's table"),
    Difference("how classifiers are trained", "not stated",
               "momentum SGD, 80,000 steps, flips, each image standardised; smoothing 0.1", "the code, over fewer epochs"),
    Difference("adversarial training: label to lead away from", "predicted, for FGSM and BIM",
               "predicted for FGSM, true for BIM", "the paper"),
    Difference("adversarial training with BIM", "clipped to the eps ball", "not clipped", "the paper"),
    Difference("adversarial training: eps", "not stated", "drawn for each image with FGSM, for each batch with BIM",
               "the code"),
    Difference("adversarial training: weight of attacked images", "not stated", "0.3 of a clean one", "the code"),
    Difference("adversarial training: deviation of eps, Fashion-MNIST", "8 or 25, not said for which column", "8, or 25 too",
               "8", _training_eps),
    Difference("attacks: label to lead away from", "written as y for all",
               "true for BIM and CW, predicted for FGSM and DeepFool", "the code", _labels),
    Difference("DeepFool and CW: rounding", "attacks are defined on integers",
               "floats without a defence, truncated where images are purified",
               "integers, rounded away from the original", _rounding),
    Difference("CW: settings", "not stated", "one constant of 1e-5, 100 steps: weak",
               "the code; a column of our own shows an attack that searches in earnest", _weak_search),
    Difference("DeepFool: pixels outside 0..255", "not stated", "the whole image is rescaled", "clipped"),
    Difference("feature squeezing, Fashion-MNIST", "8 colours, median filter", "returns nothing", "the paper", _squeezing),
    Difference("feature squeezing: what attacks know", "not stated",
               "FGSM, BIM and DeepFool know the median filter, CW nothing", "the code", _knowledge),
    Difference("writing purified images", "each level is the most likely one", "levels 1 to 127 come out one too low",
               "the paper", _truncation),
    Difference("evaluations in algorithm 1", "the network once per channel", "once per pixel",
               "the code: the answer is the same for this family of densities"),
    Difference("adaptive version: which images are spared", "those *below* a threshold probability",
               "no script for images; an undocumented option spares likely pixels",
               "those at or below a threshold in bits, so the likely ones"),
    Difference("reference images of the p-value", "the images that the density was trained on",
               "only test images are scored", "held-out images; the paper's are shown too", _calibration),
    Difference("alternative of the permutation test", "stated with two sides; the formula tests one", "one side",
               "one side: too few bits raise no alarm"),
    Difference("p-value", "counts images at most as likely, and adds one above and below the line",
               "counts images that are less likely, adds nothing", "the paper"),
)  # fmt: skip


def differences_table(labs: Mapping[str, Lab]) -> str:
    """`DIFFERENCES` in Markdown; the last column has what was measured, for each data set that has it."""
    lines = ["| place | the paper | the authors' code | here | what it changes |", "|---|---|---|---|---|"]
    for of in DIFFERENCES:
        measured = []
        for data_set, lab in labs.items():
            try:
                measured.append(f"*{TITLES[data_set]}*: {of.effect(lab)}")
            except NotRun:
                continue
        lines.append(f"| {of.place} | {of.paper} | {of.code} | {of.here} | {'<br>'.join(measured) or 'not measured'} |")
    return "\n".join(lines)
