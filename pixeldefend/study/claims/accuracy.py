"""What the paper claims of its tables 1 and 2: the baselines and PixelDefend (sections 4.2 and 4.3, appendix B)."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from ..conditions import ATTACKS, EPS_ATTACK, LOWER_ROWS, NAMES, SEARCHED, UPPER_ROWS, Row
from ..detection.tables import mean_interval
from ..lab import Lab
from ..records import Record
from ..tables import percent_interval, strongest
from .judging import CHANCE, Claim, Comparisons, NotRun, Outcome, accuracy, cell, interval, is_higher, printed, shared

NORMAL, VGG, FGSM_TRAINED, BIM_TRAINED, SMOOTHED, SQUEEZED, SQUEEZED_TRAINED = UPPER_ROWS
PURIFIED, VGG_PURIFIED, TRAINED_PURIFIED, TRAINED_ADAPTIVE = LOWER_ROWS
PAPER_BEST = {"fashion-mnist": "76/63 to 85/84", "cifar10": "74/32/6 to 81/70/56"}  # section 4.3
LESS_RESTORED = ("A better density gives more back ({numref}`fig-earlier`), and the paper's of CIFAR-10 is better than "
                 "ours; there that may be a part of the distance.")  # fmt: skip
WITHOUT = {VGG_PURIFIED: VGG, PURIFIED: NORMAL, TRAINED_PURIFIED: FGSM_TRAINED, TRAINED_ADAPTIVE: FGSM_TRAINED}


def _at_each_eps(lab: Lab, compare: Callable[[Lab, int], Outcome]) -> Comparisons:
    return {f"eps {eps}": partial(compare, lab, eps) for eps in EPS_ATTACK[lab.data_set]}


def _strongest(lab: Lab, row: Row, eps: int) -> tuple[str, Record]:
    """The strongest of the paper's attacks on a row, and its record."""
    records = {attack: cell(lab, row, attack, eps) for attack in ATTACKS}
    worst, _ = strongest(records)
    return worst, records[worst]


def _higher(before: Record, after: Record) -> Outcome:
    """Whether ``after`` is the higher accuracy, on the images that both have."""
    before, after = shared(before, after)
    (*_, high), passed = _gain(before, after), is_higher(after, before)
    return Outcome(passed, _change(before, after), len(after), undecided=not passed and high > 0)


def _gain(before: Record, after: Record) -> tuple[float, float, float]:
    """By how many points accuracy rises on the same images, image by image, with a 95 % interval: (mean, low, high)."""
    return mean_interval(100 * (after.correct.double() - before.correct.double()))


def _change(before: Record, after: Record) -> str:
    return f"{100 * before.accuracy:.1f} {percent_interval(int(before.correct.sum()), len(before))} to {accuracy(after)}"


def _points(percent: str) -> list[int]:
    return [int(value) for value in percent.split("/")]


# -- PixelDefend ------------------------------------------------------------------------------------------------------


def _best(lab: Lab, rows: Iterable[Row], eps: int) -> tuple[Row, Record]:
    """The row that the strongest attack leaves most, of those that exist. Raises `NotRun` where none does."""
    found = []
    for row in rows:
        try:
            found.append((row, _strongest(lab, row, eps)[1]))
        except NotRun as missing:
            reason = missing
    if not found:
        raise reason
    return max(found, key=lambda pair: pair[1].accuracy)


def _best_of_all(lab: Lab, eps: int) -> Outcome:
    baseline, before = _best(lab, UPPER_ROWS, eps)
    defended, after = _best(lab, LOWER_ROWS, eps)
    found = _higher(before, after)
    return replace(found, ours=f"{found.ours} ({baseline.title} to {defended.title})")


def _outperforms(lab: Lab) -> Comparisons:
    """With every row that does not exist as a comparison that could not be made."""
    found = _at_each_eps(lab, _best_of_all)
    for row in UPPER_ROWS + LOWER_ROWS:
        try:
            for eps in EPS_ATTACK[lab.data_set]:
                _strongest(lab, row, eps)
        except NotRun as missing:
            found[row.title] = partial(_refuse, missing)
    return found


def _refuse(missing: NotRun) -> Outcome:
    raise missing


def _raised(lab: Lab, attack: str, eps: int) -> Outcome:
    return _higher(cell(lab, NORMAL, attack, eps), cell(lab, PURIFIED, attack, eps))


def _near_the_papers(lab: Lab, attack: str, eps: int, paper: int) -> Outcome:
    after = cell(lab, PURIFIED, attack, eps)
    return _at_least(after, (paper - 5) / 100, f"{accuracy(after)}, paper {paper}")


def _at_least(record: Record, limit: float, ours: str = "") -> Outcome:
    passed = record.accuracy >= limit
    return Outcome(passed, ours or accuracy(record), len(record), undecided=not passed and interval(record)[1] >= limit)


def _restores(lab: Lab) -> Comparisons:
    papers = zip(EPS_ATTACK[lab.data_set], _points(printed(lab.data_set, PURIFIED, "bim")), strict=True)
    found = {f"BIM, eps {eps}, raised": partial(_raised, lab, "bim", eps) for eps in EPS_ATTACK[lab.data_set]}
    return found | {f"BIM, eps {eps}, near the paper's": partial(_near_the_papers, lab, "bim", eps, p) for eps, p in papers}


def _vgg_raised(lab: Lab, eps: int) -> Outcome:
    return _higher(_strongest(lab, VGG, eps)[1], _strongest(lab, VGG_PURIFIED, eps)[1])


def _without_modification(lab: Lab) -> Comparisons:
    attacks = [(attack, eps) for attack in ("fgsm", *SEARCHED) for eps in EPS_ATTACK[lab.data_set]]
    found = {f"ResNet, {NAMES[a]}, eps {eps}": partial(_raised, lab, a, eps) for a, eps in attacks}
    return found | {f"VGG, strongest, eps {eps}": partial(_vgg_raised, lab, eps) for eps in EPS_ATTACK[lab.data_set]}


def _declines(lab: Lab) -> Comparisons:
    paper = max(a - b for a, b in zip(_points(printed(lab.data_set, NORMAL)), _points(printed(lab.data_set, PURIFIED)),
                                      strict=True))  # fmt: skip

    def at_most(points: float) -> Outcome:
        before, after = shared(cell(lab, NORMAL), cell(lab, PURIFIED))
        lost, low, high = _gain(after, before)
        ours = f"{_change(before, after)}, {lost:.1f} points [{low:.1f},&nbsp;{high:.1f}]"
        return Outcome(lost < points, ours, len(after), undecided=low < points <= lost)

    # the paper's accuracies are rounded to whole points
    return {"no more than the paper's": partial(at_most, paper + 1), "less than ten points": partial(at_most, 10)}


def _above_70(lab: Lab) -> Comparisons:
    def compare(attack: str, eps: int) -> Outcome:
        record = cell(lab, TRAINED_PURIFIED, attack, eps)
        passed = record.accuracy > 0.7
        return Outcome(passed, accuracy(record), len(record), undecided=not passed and interval(record)[1] > 0.7)

    cells = [(attack, eps) for attack in ATTACKS if attack != "bim" for eps in EPS_ATTACK[lab.data_set]]
    return {f"{NAMES[attack]}, eps {eps}": partial(compare, attack, eps) for attack, eps in cells}


def _doubles(lab: Lab) -> Comparisons:
    def compare() -> Outcome:
        pairs = [shared(_strongest(lab, FGSM_TRAINED, eps)[1], _strongest(lab, TRAINED_PURIFIED, eps)[1])
                 for eps in EPS_ATTACK[lab.data_set]]  # fmt: skip
        ours = "; ".join(f"eps {eps}: {_change(*pair)}" for eps, pair in zip(EPS_ATTACK[lab.data_set], pairs, strict=True))
        doubled = any(after.accuracy >= 2 * before.accuracy and is_higher(after, before) for before, after in pairs)
        return Outcome(doubled, ours, len(pairs[0][1]))

    return {"strongest attack": compare}


def _insensitive(lab: Lab) -> Comparisons:
    def raised(row: Row, eps: int) -> Outcome:
        return _higher(_strongest(lab, WITHOUT[row], eps)[1], _strongest(lab, row, eps)[1])

    def level(row: Row) -> Outcome:
        small, *_, large = shared(*(_strongest(lab, row, eps)[1] for eps in EPS_ATTACK[lab.data_set]))
        (_, low, high), passed = _gain(small, large), abs(large.accuracy - small.accuracy) <= 0.1
        return Outcome(passed, _change(small, large), len(large), undecided=not passed and low <= 10 and high >= -10)

    found = {f"{row.title}, eps {eps}, raised": partial(raised, row, eps)
             for row in LOWER_ROWS for eps in EPS_ATTACK[lab.data_set]}  # fmt: skip
    return found | {f"{row.title}, level": partial(level, row) for row in LOWER_ROWS}


def _adaptive(lab: Lab) -> Comparisons:
    def clean() -> Outcome:
        return _higher(cell(lab, TRAINED_PURIFIED), cell(lab, TRAINED_ADAPTIVE))

    def keeps(before: Record, after: Record) -> Outcome:
        before, after = shared(before, after)
        lost = int(before.correct.sum()) - int(after.correct.sum())
        (*_, high), passed = _gain(before, after), 100 * lost <= len(after)
        return Outcome(passed, _change(before, after), len(after), undecided=not passed and high >= -1)

    def under_the_strongest(lab: Lab, eps: int) -> Outcome:
        return keeps(_strongest(lab, TRAINED_PURIFIED, eps)[1], _strongest(lab, TRAINED_ADAPTIVE, eps)[1])

    def under(attack: str, eps: int) -> Outcome:
        return keeps(cell(lab, TRAINED_PURIFIED, attack, eps), cell(lab, TRAINED_ADAPTIVE, attack, eps))

    found = {f"strongest, {what}": compare for what, compare in _at_each_eps(lab, under_the_strongest).items()}
    attacks = [(attack, eps) for attack in ATTACKS for eps in EPS_ATTACK[lab.data_set]]
    found |= {f"{NAMES[a]}, eps {e}": partial(under, a, e) for a, e in attacks}
    return {"clean": clean} | found


# -- the baselines ----------------------------------------------------------------------------------------------------


def _fgsm_training(lab: Lab) -> Comparisons:
    def helps(lab: Lab, eps: int) -> Outcome:
        return _higher(cell(lab, NORMAL, "fgsm", eps), cell(lab, FGSM_TRAINED, "fgsm", eps))

    def not_against_bim(lab: Lab, eps: int) -> Outcome:
        without, trained = shared(*(cell(lab, row, "bim", eps) for row in (NORMAL, FGSM_TRAINED)))
        half = cell(lab, FGSM_TRAINED).accuracy / 2
        undecided = trained.accuracy >= half > interval(trained)[0]
        return Outcome(trained.accuracy < half, _change(without, trained), len(trained), undecided)

    found = {f"FGSM, {what}": compare for what, compare in _at_each_eps(lab, helps).items()}
    return found | {f"BIM, {what}": compare for what, compare in _at_each_eps(lab, not_against_bim).items()}


def _bim_training(lab: Lab, eps: int) -> Outcome:
    others = [_strongest(lab, row, eps)[1] for row in (NORMAL, FGSM_TRAINED)]
    after = _strongest(lab, BIM_TRAINED, eps)[1]
    return _higher(max(others, key=lambda record: record.accuracy), after)


def _smoothing(lab: Lab) -> Comparisons:
    def helps(lab: Lab, eps: int) -> Outcome:
        return _higher(cell(lab, NORMAL, "fgsm", eps), cell(lab, SMOOTHED, "fgsm", eps))

    def only(lab: Lab, eps: int) -> Outcome:
        attack, worst = _strongest(lab, SMOOTHED, eps)
        one, worst = shared(cell(lab, SMOOTHED, "fgsm", eps), worst)
        return Outcome(worst.accuracy < one.accuracy / 2, f"{accuracy(worst)} ({NAMES[attack]})", len(worst))

    found = {f"FGSM, {what}": compare for what, compare in _at_each_eps(lab, helps).items()}
    return found | {f"strongest, {what}": compare for what, compare in _at_each_eps(lab, only).items()}


def _dominates(lab: Lab) -> Comparisons:
    cells = [("clean", 0)] + [(attack, eps) for attack in ATTACKS for eps in EPS_ATTACK[lab.data_set]]

    def compare(attack: str, eps: int) -> Outcome:
        alone, both = shared(cell(lab, SQUEEZED, attack, eps), cell(lab, SQUEEZED_TRAINED, attack, eps))
        lower = is_higher(alone, both, level=CHANCE / len(cells))  # one of so many falls below `CHANCE` by itself
        passed = both.accuracy >= alone.accuracy
        return Outcome(passed, _change(alone, both), len(both), undecided=not passed and not lower)

    return {f"{NAMES[a]}{f', eps {eps}' if eps else ''}": partial(compare, a, eps) for a, eps in cells}


def _squeezing(lab: Lab) -> Comparisons:
    def good(attack: str, eps: int) -> Outcome:
        return _at_least(cell(lab, SQUEEZED_TRAINED, attack, eps), 0.7)

    def poor(eps: int) -> Outcome:
        record = cell(lab, SQUEEZED_TRAINED, "bim", eps)
        low, high = interval(record)
        return Outcome(high < 0.5, accuracy(record), len(record), undecided=low < 0.5 <= high)

    found = {f"{NAMES[a]}, eps {eps}": partial(good, a, eps) for a in SEARCHED for eps in EPS_ATTACK[lab.data_set]}
    return found | {f"BIM, eps {eps}": partial(poor, eps) for eps in EPS_ATTACK[lab.data_set][1:]}


def _rows(attack: str, *rows: Row, worst: bool = False) -> Callable[[str], str]:
    """The paper's numbers of some rows for an attack, or for the strongest one."""
    return lambda data_set: " to ".join(printed(data_set, row, attack, strongest=worst) for row in rows)


def _texts(**rows: Callable[[str], str]) -> Callable[[str], str]:
    """Several of the paper's numbers, each after its name."""
    return lambda data_set: "; ".join(f"{name.replace('_', ' ')} {text(data_set)}" for name, text in rows.items())


CLAIMS = (
    Claim("abstract, 4.3", "The best model with PixelDefend beats every other method under the strongest attack.",
          "the best row with PixelDefend keeps more than the best without, by more than chance.",
          lambda data_set: PAPER_BEST[data_set], _outperforms, reasons={"eps": LESS_RESTORED}),
    Claim("4.1, 4.3", "Purification restores accuracy (ResNet, BIM).",
          "it is raised by more than chance; and it comes within five points of the paper's, or above.",
          _rows("bim", NORMAL, PURIFIED), _restores, reasons={"BIM": LESS_RESTORED}),
    Claim("4.3", "It does so for other classifiers and attacks, without modification.",
          "accuracy is raised by more than chance.",
          _texts(FGSM=_rows("fgsm", NORMAL, PURIFIED), DeepFool=_rows("deepfool", NORMAL, PURIFIED),
                 CW=_rows("carlini_wagner", NORMAL, PURIFIED), VGG=_rows("bim", VGG, VGG_PURIFIED, worst=True)),
          _without_modification, reasons={"": LESS_RESTORED}),
    Claim("4.3", "Accuracy on clean images declines only slightly (ResNet).",
          "two comparisons of the decline, image by image: it is no more than the paper's largest; and, less strict, it is "
          "less than ten points.",
          _rows("clean", NORMAL, PURIFIED), _declines,
          reasons={"": "Purification smooths away what the density does not expect, with or without an attack "
                       "({numref}`fig-gallery`)."}),
    Claim("4.3", "More than 70 % under all attacks but the strongest, BIM (ResNet, adversarial FGSM + PixelDefend).",
          "accuracy exceeds 70 %.",
          _texts(RAND=_rows("rand", TRAINED_PURIFIED), FGSM=_rows("fgsm", TRAINED_PURIFIED),
                 DeepFool=_rows("deepfool", TRAINED_PURIFIED), CW=_rows("carlini_wagner", TRAINED_PURIFIED)),
          _above_70,
          reasons={"FGSM": "What a network trained on FGSM examples reads off the perturbation, purification takes away: "
                           "without it the same images do better ({doc}`06_tables`)."}),
    Claim("4.3", "Added to adversarial FGSM training, PixelDefend sometimes doubles accuracy.",
          "under the strongest attack accuracy is at least twice that without PixelDefend, and higher by more than chance, "
          "at one eps or more.",
          _rows("bim", FGSM_TRAINED, TRAINED_PURIFIED, worst=True), _doubles),
    Claim("4.3", "PixelDefend is insensitive to the eps of the attack.",
          "two readings: one eps_defend serves every eps, that is, accuracy under the strongest attack is raised by more "
          "than chance; and it is level, that is, changes by ten points or less from the smallest eps to the largest.",
          lambda data_set: "; ".join(printed(data_set, row, strongest=True) for row in LOWER_ROWS), _insensitive,
          reasons={"": LESS_RESTORED}),
    Claim("4.2, app. B", "Sparing likely images raises clean accuracy, at no cost under attack (adversarial FGSM).",
          "clean accuracy is higher than with PixelDefend proper, by more than chance; under each attack, and under the "
          "strongest, it is lower by at most one point.",
          _texts(clean=_rows("clean", *LOWER_ROWS[2:]), strongest=_rows("bim", *LOWER_ROWS[2:], worst=True)),
          _adaptive,
          reasons={"CW": "The rule looks at the strongest attack alone. Many images after CW are likely enough to be "
                         "spared, and stay as they were attacked."}),
    Claim("4.3", "Adversarial FGSM training successfully defends against FGSM, but cannot defend against BIM.",
          "under FGSM accuracy is higher than without it, by more than chance; under BIM less than half "
          "of the accuracy on clean images is left.",
          _texts(FGSM=_rows("fgsm", NORMAL, FGSM_TRAINED), BIM=_rows("bim", FGSM_TRAINED)), _fgsm_training,
          reasons={"BIM": "The paper's network keeps more under FGSM and less under BIM, the mark of a hidden gradient; "
                          "ours, trained for less time, went less far that way ({doc}`06_tables`)."}),
    Claim("4.3", "Adversarial BIM training prevents a wider range of attacks.",
          "under the strongest attack accuracy is higher than with normal and with FGSM training, by more than chance.",
          _rows("bim", NORMAL, FGSM_TRAINED, BIM_TRAINED, worst=True), lambda lab: _at_each_eps(lab, _bim_training)),
    Claim("4.3", "Label smoothing is only effective against FGSM.",
          "under FGSM accuracy is higher than without it, by more than chance; under the strongest attack it is less than "
          "half of that under FGSM.",
          _texts(FGSM=_rows("fgsm", NORMAL, SMOOTHED), strongest=_rows("bim", SMOOTHED, worst=True)), _smoothing),
    Claim("4.3", "Feature squeezing with adversarial training dominates feature squeezing alone in all settings.",
          "accuracy is not lower; where it is, but not by more than chance, p < 0.05 divided by the number of comparisons "
          "(Bonferroni), the comparison is undecided.",
          _texts(clean=_rows("clean", SQUEEZED, SQUEEZED_TRAINED), BIM=_rows("bim", SQUEEZED, SQUEEZED_TRAINED)),
          _dominates,
          reasons={"DeepFool": "DeepFool may have to go further against a network trained on adversarial examples, and "
                               "squeezing undoes small changes best."}),
    Claim("4.3", "With adversarial training, feature squeezing is good against DeepFool and CW, poor against BIM with a "
          "larger eps.",
          "accuracy is at least 70 % under DeepFool and CW; below 50 %, with the whole interval, under BIM (all eps but the "
          "smallest).",
          _texts(DeepFool=_rows("deepfool", SQUEEZED_TRAINED), CW=_rows("carlini_wagner", SQUEEZED_TRAINED),
                 BIM=_rows("bim", SQUEEZED_TRAINED)),
          _squeezing,
          reasons={"DeepFool": "DeepFool knows of the median filter here, as in the authors' code; why theirs gains nothing "
                               "from that cannot be told."}),
)  # fmt: skip
