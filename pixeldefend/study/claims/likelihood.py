"""What the paper claims of its density and its classifiers, of detection and of purified images (sections 3 and 4.1)."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from scipy.stats import kstest
from torch import Tensor

from ... import paths
from ...classifiers import saved_classifiers
from ...classifiers.store import classifier_name
from ...detection import auc_interval, p_values, roc
from ...weights import SCORES
from ..available import FIGURE_EPS
from ..conditions import ATTACKS, EPS_ATTACK, LOWER_ROWS, NAMES, SEARCHED, UPPER_ROWS, Row, paper_accuracy
from ..detection.noise import estimated_accuracy, matching_threshold
from ..detection.tables import LARGE, NEARLY, mean_interval, paired
from ..lab import Lab
from ..records import read_signed
from ..tables import wilson_interval
from .judging import (
    Claim,
    Comparisons,
    NotRun,
    Outcome,
    accuracy,
    cell,
    cifar10_only,
    most,
    printed,
    reference,
    scored,
    share,
)

NORMAL, PURIFIED = UPPER_ROWS[0], LOWER_ROWS[0]
PAPER_BITS = {"fashion-mnist": 2.7, "cifar10": 3.0}  # appendix B
PAPER_RATE = 3.6  # CIFAR-10 images purified a second (section 4.1)
PAPER_FLOPS = 2 * 24.4e9  # of one pass of the authors' network over an image of CIFAR-10, counted from their code
ADVERSARIAL = ATTACKS[1:]  # without RAND
RARE = 0.05  # of held-out images: less likely than all but these is a region of low probability
MUCH_FASTER = 10  # times: "greatly increases the speed" (section 4.1)
ORDERS = 3  # "several orders of magnitude": a factor of 1,000

SEARCHES_STOP = ("The search ends where the prediction changes. Its changes are small, or they may lie where the density is "
                 "unsure ({numref}`tbl-changes`).")  # fmt: skip
SPREAD = ("On Fashion-MNIST the bits of clean images are spread so widely that the threshold lies among those of noisy ones "
          "({numref}`fig-threshold`).")  # fmt: skip
TOO_LIKELY = ("Purification takes the most probable level each time, where a real image is a sample: purified images are "
              "often likelier than clean ones ({numref}`tbl-purified-auc`).")  # fmt: skip


def _file(path: Path, what: str) -> dict:
    if not path.is_file():
        raise NotRun(what)
    return json.loads(path.read_text())


def _density_scores(lab: Lab) -> dict:
    return _file(paths.WEIGHTS / "pixelcnn" / lab.density_name / SCORES, f"a density of {lab.data_set}")


def _density_quality(lab: Lab) -> Comparisons:
    paper = PAPER_BITS[lab.data_set]

    def at_most(limit: float) -> Outcome:
        scores = _density_scores(lab)
        mean, images = scores["test_bits_per_dim"], scores["test_images"]
        half = 1.96 * scores["test_bits_per_dim_std"] / math.sqrt(images)
        ours = f"{mean:.3f} [{mean - half:.3f},&nbsp;{mean + half:.3f}]"
        return Outcome(mean < limit, ours, images, undecided=mean >= limit > mean - half)

    # the paper prints one decimal
    return {"as low as the paper's": partial(at_most, paper + 0.05), "at most 10 % above": partial(at_most, 1.1 * paper)}


def _classifier_quality(lab: Lab) -> Comparisons:
    def compare(row: Row) -> Outcome:
        name = classifier_name(lab.data_set, row.network, row.training)
        if name not in saved_classifiers():
            raise NotRun(f"the classifier {name}")
        scores = _file(paths.WEIGHTS / "classifiers" / name / SCORES, f"the scores of {name}")
        images = scores["test_images"]
        paper = max(paper_accuracy(row.condition(lab.data_set), eps=eps) for eps in EPS_ATTACK[lab.data_set])
        right = round(scores["test_accuracy"] * images)
        passed = 100 * scores["test_accuracy"] >= paper - 2
        undecided = not passed and 100 * wilson_interval(right, images)[1] >= paper - 2
        return Outcome(passed, share(right, images), images, undecided)

    return {row.title: partial(compare, row) for row in UPPER_ROWS if row.defence == "none"}


def _paper_classifiers(data_set: str) -> str:
    return "<br>".join(f"{row.title}: {printed(data_set, row)}" for row in UPPER_ROWS if row.defence == "none")


def _speed(lab: Lab) -> Comparisons:
    def fastest() -> tuple[dict, dict]:
        found = sorted((paths.RECORDS / "speed").glob(f"{lab.density_name}-*.json"))
        if not found or not lab.has_density:
            raise NotRun(f"a record of the speed of a density of {lab.data_set}")
        record = read_signed(found[-1])
        if record["fingerprint"] != lab.density_fingerprint:
            raise NotRun("a record of the speed of these weights")
        return record, max(record["purify"], key=lambda entry: entry["images_per_second"])

    def images() -> Outcome:
        record, best = fastest()
        rate = best["images_per_second"]
        ours = f"{rate:.1f} a second, {lab.density_name} on {record['machine']['device']}"
        return Outcome(rate >= PAPER_RATE, ours, best["images"])

    def arithmetic() -> Outcome:
        record, best = fastest()
        rate = best["images_per_second"] * record["flops_per_image"]
        ours = f"{rate / 1e9:.0f} GFLOP a second, theirs {PAPER_RATE * PAPER_FLOPS / 1e9:.0f}"
        return Outcome(rate >= PAPER_RATE * PAPER_FLOPS, ours, best["images"])

    def caching() -> Outcome:
        record, _ = fastest()
        few = min(record["purify"], key=lambda entry: entry["images"])
        times = few["images_per_second"] / record["naive"]["images_per_second"]
        return Outcome(times >= MUCH_FASTER, f"{times:.0f} times as fast", few["images"])

    return {"images": images, "arithmetic": arithmetic, "with what is known already kept": caching}


# -- section 3 --------------------------------------------------------------------------------------------------------


def _low_probability(lab: Lab, attack: str) -> Outcome:
    """How many of the attacked images are less likely than all but `RARE` of the held-out ones."""
    rare = p_values(-scored(lab, NORMAL, attack, FIGURE_EPS).bits, -reference(lab, "held-out").bits) <= RARE
    return most(rare)


def _orders_lower(lab: Lab) -> Comparisons:
    def compare(attack: str, own: bool) -> Outcome:
        attacked = scored(lab, NORMAL, attack, FIGURE_EPS).bits
        others = paired(scored(lab, NORMAL).bits, attacked) if own else reference(lab, "held-out").bits.median()
        orders = (attacked - others) * lab.test.images[0].numel() * math.log10(2)
        return most(orders >= ORDERS)

    kinds = {"than its original": True, "than the median held-out image": False}
    return {f"{NAMES[attack]}, {what}": partial(compare, attack, own)
            for what, own in kinds.items() for attack in ADVERSARIAL}  # fmt: skip


def _noise_harmless(lab: Lab) -> Outcome:
    noisy, clean = cell(lab, NORMAL, "rand", FIGURE_EPS), cell(lab, NORMAL)
    ours = f"{accuracy(noisy)}, clean {100 * clean.accuracy:.1f}&nbsp;%"
    return Outcome(noisy.accuracy >= clean.accuracy - 0.1, ours, len(noisy))


def _uniform(lab: Lab) -> Outcome:
    values = p_values(-scored(lab, NORMAL).bits, -reference(lab, "train").bits)
    distance = kstest(values.numpy(), "uniform").statistic
    return Outcome(bool(distance <= NEARLY), f"largest distance from uniform {distance:.3f}", len(values))


def _area(lab: Lab, row: Row, attack: str) -> float:
    """Under the ROC curve."""
    return roc(*_clean_and_attacked(lab, row, attack)).auc


def _clean_and_attacked(lab: Lab, row: Row, attack: str) -> tuple[Tensor, Tensor]:
    """p-values, against held-out images, of the clean test images that the attack was given and of what it made of them."""
    held_out = -reference(lab, "held-out").bits
    clean, attacked = (p_values(-of.bits, held_out) for of in (scored(lab, NORMAL), scored(lab, row, attack, FIGURE_EPS)))
    return paired(clean, attacked), attacked


def _auc(lab: Lab, row: Row, attack: str, passes: Callable[[float], bool]) -> Outcome:
    area, scores = _area(lab, row, attack), _clean_and_attacked(lab, row, attack)
    low, high = auc_interval(*scores)
    undecided = not passes(area) and any(map(passes, (low, high, min(max(0.5, low), high))))
    return Outcome(passes(area), f"{area:.3f} [{low:.3f},&nbsp;{high:.3f}]", len(scores[1]), undecided)


def _deviates_less(lab: Lab, attack: str) -> Outcome:
    """Whether an attack's p-values are lower than those of the same images, clean, and its AUC than those of the larger
    perturbations."""
    clean, attacked = _clean_and_attacked(lab, NORMAL, attack)
    mean, low, high = mean_interval(attacked - clean)
    lowest = min(_area(lab, NORMAL, other) for other in LARGE)
    own = _auc(lab, NORMAL, attack, lambda area: area < lowest)
    ours = f"AUC {own.ours}, p-values {mean:+.3f} [{low:+.3f},&nbsp;{high:+.3f}]"
    passed = own.passed and high < 0
    return replace(own, ours=ours, passed=passed, undecided=not passed and low < 0 and (own.passed or own.undecided))


# -- appendix A -------------------------------------------------------------------------------------------------------


def _noise_classifier(lab: Lab) -> Comparisons:
    def threshold() -> float:
        return matching_threshold(reference(lab, "held-out").bits)

    def above(attack: str, eps: int, low: float, high: float) -> Outcome:
        bits = scored(lab, NORMAL, attack, eps).bits
        count = int((bits >= threshold()).sum())
        ends = wilson_interval(count, len(bits))
        ours = f"{share(count, len(bits))} above {threshold():.2f} bits"
        passed = low <= ends[0] and ends[1] <= high
        return Outcome(passed, ours, len(bits), undecided=not passed and low <= ends[1] and ends[0] <= high)

    def estimate(attack: str, eps: int, passes: Callable[[float, float], bool]) -> Outcome:
        record, limit = scored(lab, NORMAL, attack, eps), threshold()
        value = estimated_accuracy(record.accuracy, int((record.bits >= limit).sum()), len(record))
        ours = f"{100 * value:.1f}&nbsp;%, ResNet {100 * record.accuracy:.1f}&nbsp;%"
        return Outcome(passes(value, record.accuracy), ours, len(record))

    return {
        "clean": partial(above, "clean", 0, 0, 0.05),
        "RAND": partial(above, "rand", FIGURE_EPS, 0.9, 1),
        "ResNet', clean": partial(estimate, "clean", 0, lambda value, before: value >= before - 0.03),
        "ResNet', RAND": partial(estimate, "rand", FIGURE_EPS, lambda value, _: value <= 0.2),
    }


# -- section 4.1 ------------------------------------------------------------------------------------------------------


def _detected_less(lab: Lab, attack: str) -> Outcome:
    before = _area(lab, NORMAL, attack)
    after = _auc(lab, PURIFIED, attack, lambda area: abs(area - 0.5) < abs(before - 0.5))
    return replace(after, ours=f"AUC {before:.3f}, purified {after.ours}")


def _still_less_likely(lab: Lab) -> Outcome:
    purified, clean = scored(lab, PURIFIED, "fgsm", FIGURE_EPS), scored(lab, NORMAL)
    mean, low, high = mean_interval(purified.bits - clean.bits)
    ours = f"{mean:+.2f} [{low:+.2f},&nbsp;{high:+.2f}] bits per dimension"
    return Outcome(low > 0, ours, len(purified), undecided=low <= 0 < high)


def _each(attacks: Sequence[str], compare: Callable[[Lab, str], Outcome]) -> Callable[[Lab], Comparisons]:
    return lambda lab: {NAMES[attack]: partial(compare, lab, attack) for attack in attacks}


CLAIMS = (
    Claim("app. B", "The density is good: low bits per dimension on test images.",
          "two comparisons: the mean rounds to the paper's or less; and, less strict, it exceeds it by less than 10 %.",
          lambda data_set: f"{PAPER_BITS[data_set]}", _density_quality,
          reasons={"": "Ours was trained for hours on two processor cores, and that of CIFAR-10 is smaller than the paper's "
                       "({numref}`tbl-trained-densities`)."}),
    Claim("tables 1, 2", "The classifiers are good on clean images.",
          "accuracy on all test images is at most two points below the paper's.",
          _paper_classifiers, _classifier_quality,
          reasons={"": "The authors train for about 200 epochs, which ours did not get ({numref}`tbl-trained`)."}),
    Claim("abstract, 3", "Adversarial images lie mainly in regions of low probability, whatever the attack (eps 8).",
          "more than half of the attacked images, with the whole interval, are less likely than 95 % of held-out images.",
          cifar10_only("figure 2a, no number"), _each(ADVERSARIAL, _low_probability),
          reasons=dict.fromkeys(("DeepFool", "CW"), SEARCHES_STOP)),
    Claim("1", "They are typically several orders of magnitude less likely (eps 8).",
          "more than half, with the whole interval, are at least 1,000 times less likely than the image they come from; and "
          "than the median held-out image. (For a whole image that is little: 0.013 bits per dimension or less.)",
          cifar10_only(""), _orders_lower),
    Claim("3, app. A", "Random noise is as unlikely, but does little harm (eps 8).",
          "the rule of low probability; and the ResNet loses at most ten points of accuracy.",
          lambda data_set: f"accuracy {printed(data_set, NORMAL, 'rand')}, clean {printed(data_set, NORMAL)}",
          lambda lab: {"less likely than 95 %": partial(_low_probability, lab, "rand"),
                       "accuracy": partial(_noise_harmless, lab)}),
    Claim("3", "p-values of clean test images are nearly uniform, with training images as the reference.",
          "their distribution differs from the uniform one by at most 0.05 (Kolmogorov-Smirnov distance).",
          cifar10_only("figure 3a, no number"), lambda lab: {"clean": partial(_uniform, lab)}),
    Claim("3", "RAND, FGSM and BIM are detected especially well (eps 8).",
          "the area under the ROC curve, against the same test images, clean, is at least 0.9.",
          cifar10_only("figure 6a, no number"),
          _each(LARGE, lambda lab, attack: _auc(lab, NORMAL, attack, lambda area: area >= 0.9))),
    Claim("3", "DeepFool and CW deviate significantly too, though less (eps 8).",
          "their p-values are lower than those of the same images, clean, on average, with the whole interval; and their "
          "AUC is below those of RAND, FGSM and BIM.",
          cifar10_only("figures 3 and 6a, no number"), _each(SEARCHED, _deviates_less),
          reasons={"CW": SEARCHES_STOP}),
    Claim("app. A", "A threshold on the bits makes a classifier good on clean images, and fooled by noise (eps 8).",
          "at most 5 % of the clean images, and at least 90 % of those with noise, lie above the threshold, with the whole "
          "interval; ResNet' loses at most three points on clean images, and keeps at most 20 % with noise. The threshold "
          "is that which 1.75 % of the held-out images exceed, as many as the paper's cuts off; its own 4.5 bits belong to "
          "its density.",
          cifar10_only("above 4.5 bits: 175 of 10,000 clean, 9,874 with noise; ResNet' 90.6 and 11.0&nbsp;%"),
          _noise_classifier,
          reasons=dict.fromkeys(("RAND", "ResNet', RAND"), SPREAD)),
    Claim("4.1", "Purified images are closer to the training distribution: p-values tell them less well (eps 8).",
          "the area under the ROC curve is closer to one half after purification.",
          cifar10_only("figures 6b and 7, no number"), _each(ATTACKS, _detected_less), reasons={"": TOO_LIKELY}),
    Claim("4.1", "Purified images of DeepFool and CW can barely be told from normal ones (eps 8).",
          "after purification the area under the ROC curve differs from one half by at most 0.1.",
          cifar10_only("figure 6b, no number"),
          _each(SEARCHED, lambda lab, attack: _auc(lab, PURIFIED, attack, lambda area: abs(area - 0.5) <= 0.1)),
          reasons={"": TOO_LIKELY}),
    Claim("4.1", "Purified images are still less likely than clean ones (FGSM, eps 8).",
          "they cost more bits than the clean image they come from, on average, with the whole interval.",
          cifar10_only("figure 5, no number"), lambda lab: {"FGSM": partial(_still_less_likely, lab)},
          reasons={"": TOO_LIKELY}),
    Claim("4.1", "Purification is fast.",
          "three comparisons: images a second, with the best of the batches that were tried, at least the authors'; as the "
          "networks differ in size, also these times the arithmetic of one pass through the network; and, with one image at "
          "a time and what was computed before kept, at least ten times as fast as a pass for each sub-pixel.",
          lambda data_set: "3.6 a second on a TITAN Xp", _speed, data_sets=("cifar10",),
          reasons={"arithmetic": "The paper's number is from a GPU; {doc}`09_cost` says what ours is from."}),
)  # fmt: skip
