"""Tables and figures on likelihoods and detection, and what the chapters can show."""

import pytest
import torch
from matplotlib.colors import to_rgba

from pixeldefend import p_values, roc
from pixeldefend.study import Condition, Record, available, figures
from pixeldefend.study.conditions import ATTACKS, EPS_ATTACK, PROFILES, ROWS
from pixeldefend.study.detection import figures as detection_figures
from pixeldefend.study.detection import tables


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def record(right: int, count: int, *, attack: str = "clean", eps: int = 0, bits: float = 3.0) -> Record:
    """Bits go evenly from half a bit below to half a bit above ``bits``."""
    predictions = [0] * right + [1] * (count - right)
    scores = torch.linspace(bits - 0.5, bits + 0.5, count).tolist()
    return Record({"attack": attack, "eps": eps}, list(range(count)), [0] * count, predictions, scores)


@pytest.fixture
def kinds():
    """Clean images, and attacked ones as in the paper's figures 2 and 3."""
    bits = {"rand": 5.0, "fgsm": 5.1, "bim": 4.6, "deepfool": 3.6, "carlini_wagner": 3.4}
    attacked = {kind: record(50, 100, attack=kind, eps=8, bits=value) for kind, value in bits.items()}
    return {"clean": record(180, 200)} | attacked


def test_likelihoods_and_errors_stand_beside_the_papers_errors(kinds):
    head, rule, clean, rand, *_ = tables.likelihood_table(kinds, "cifar10").splitlines()
    assert len(cells(head)) == len(cells(rule)) == len(cells(clean)) == 5
    assert cells(clean) == ["clean", "200", "**3.00**<br>[2.96,&nbsp;3.04]", "**10.0**<br>[6,&nbsp;15]", "8"]
    assert cells(rand)[2:] == ["**5.00**<br>[4.94,&nbsp;5.06]", "**50.0**<br>[40,&nbsp;60]", "13"]


def test_kinds_are_ordered_by_their_means(kinds):
    order = tables.in_order(available.bits_of(kinds))
    assert order == "clean 3.00, CW 3.40, DeepFool 3.60, BIM 4.60, RAND 5.00, FGSM 5.10"


def test_a_detection_table_has_areas_and_rates_with_intervals_and_the_number_of_images():
    clean, far, same = torch.linspace(0.01, 1, 100), torch.full((50,), 0.015), torch.linspace(0.01, 1, 100)
    positives = {"bim": far, "same, purified": same, "one": far[:1]}
    lines = tables.detection_table(positives, dict.fromkeys(positives, clean)).splitlines()
    assert len(lines) == 4, "one image has no interval and no row"
    assert cells(lines[0]) == ["images", "n", "negatives", "AUC", "found in %, p&nbsp;≤&nbsp;0.01",
                               "found in %, p&nbsp;≤&nbsp;0.05"]  # fmt: skip
    assert cells(lines[2])[:3] == ["BIM", "50", "100"]
    assert cells(lines[2])[3].startswith("**0.990**<br>[0.")
    assert cells(lines[2])[4] == "**0.0**<br>[0,&nbsp;8]<br>clean&nbsp;1.0"
    assert cells(lines[2])[5] == "**100.0**<br>[92,&nbsp;100]<br>clean&nbsp;5.0"
    assert cells(lines[3])[0] == "same, purified" and cells(lines[3])[3].startswith("**0.500**<br>[0.4")
    assert cells(lines[3])[4:] == ["**1.0**<br>[0,&nbsp;6]<br>clean&nbsp;1.0", "**5.0**<br>[2,&nbsp;12]<br>clean&nbsp;5.0"]


def test_the_papers_negatives_add_a_column():
    clean, far = torch.linspace(0.01, 1, 100), torch.full((50,), 0.2)
    line = tables.detection_table({"fgsm": far}, {"fgsm": clean}, levels=(0.5,), paper=({"fgsm": far}, far)).splitlines()[2]
    assert len(cells(line)) == 6 and cells(line)[5] == "**0.500**<br>[0.500,&nbsp;0.500]"


def test_printed_areas_are_rounded_outward():
    clean, adversarial = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.0, 2.5, 3.5])
    low, high = (float(n) for n in tables.auc_cell(clean, adversarial).split("[")[1][:-1].split(",&nbsp;"))
    assert (low, high) == pytest.approx(tables.auc_interval(clean, adversarial), abs=1e-3)
    assert low <= tables.auc_interval(clean, adversarial)[0] and high >= tables.auc_interval(clean, adversarial)[1]
    assert "[0.981,&nbsp;1.000]" in tables.auc_cell(clean.repeat(50), adversarial.repeat(70) - 9)


def test_tables_are_stacked_under_titles_if_their_columns_agree():
    one, other = "| a | b |\n|---|--:|\n| x | 1 |", "| a | b |\n|---|--:|\n| y | 2 |"
    assert tables.stacked({"First": one, "Second": other}).splitlines() == [
        "| a | b |", "|---|--:|", "| **First** | |", "| x | 1 |", "| **Second** | |", "| y | 2 |",
    ]  # fmt: skip
    for wrong in ({}, {"First": one, "Second": one.replace("b", "c")}):
        with pytest.raises(ValueError, match="columns"):
            tables.stacked(wrong)


def test_images_like_the_reference_are_calibrated_and_less_likely_ones_are_not(generator):
    reference, same = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (2000, 500))
    good, bad = tables.calibration(same, reference), tables.calibration(same + 0.3, reference)
    assert (good.images, good.reference_images) == (500, 2000)
    assert good.distance < 0.06 < bad.distance and good.chance > 0.05 > bad.chance
    assert abs(good.flagged / 500 - 0.05) < 0.03 and bad.flagged > good.flagged
    assert good.flagged == (p_values(-same, -reference) <= 0.05).sum()
    line = tables.calibration_table({"held out": bad}).splitlines()[2]
    assert cells(line)[:2] == ["held out", "2000"] and cells(line)[5] == "below 0.0001"


def test_the_distance_is_the_largest_gap_to_the_diagonal():
    """p-values 1/5 .. of images all below the reference: all are 1/5, so the gap is 4/5."""
    found = tables.calibration(torch.full((3,), 9.0), torch.arange(4.0))
    assert found.distance == pytest.approx(0.8) and found.flagged == 0


def test_means_have_intervals():
    mean, low, high = tables.mean_interval(torch.tensor([1.0, 3.0]))
    assert (mean, low, high) == pytest.approx((2, 2 - 1.96, 2 + 1.96), abs=1e-3)
    with pytest.raises(ValueError, match="two"):
        tables.mean_interval(torch.ones(1))


@pytest.mark.parametrize(("shift", "verdict"), [(0.5, "yes"), (-0.5, "no"), (0.0, "undecided")])
def test_an_order_holds_if_the_same_images_differ(shift, verdict):
    """However much images differ among themselves."""
    values = 100 * torch.linspace(0, 1, 200)
    jitter = torch.tensor([-0.1, 0.1]).repeat(100)
    groups = {"a": values, "b": values + shift + jitter, "c": values + 5}
    assert tables.holds(groups, ["a"], ["b"]) == verdict
    assert tables.holds(groups, ["a"], ["b", "c"]) == verdict
    assert tables.holds(groups, ["c"], ["b", "a"]) == "no"


def test_orders_are_judged_on_the_images_that_both_kinds_have():
    """The first 50 clean images are as likely as the attacked ones; the others are not, but were not attacked."""
    few = torch.linspace(0, 1, 50)
    groups = {"clean": torch.cat([few, few + 9]), "attacked": few}
    assert tables.holds(groups, ["attacked"], ["clean"]) == "undecided"
    assert torch.equal(tables.paired(groups["clean"], groups["attacked"]), few)


def test_the_claims_of_figure_3(kinds):
    reference = torch.linspace(2.5, 3.5, 1000, dtype=torch.float64)

    def claims(records):
        groups = {kind: p_values(-found.bits, -reference) for kind, found in records.items()}
        return groups, tables.figure_3_claims(groups, tables.calibration(records["clean"].bits, reference))

    groups, found = claims(kinds)
    assert set(found.values()) == {"yes"} and len(found) == 7
    _, other = claims(kinds | {"deepfool": kinds["rand"], "clean": record(0, 200, bits=3.2)})
    changed = {claim for claim in found if other[claim] != found[claim]}
    assert changed == {"clean p-values: at most 0.05 from uniform", "RAND, FGSM, BIM below DeepFool"}
    assert tables.claims_summary(found) == "7 of 7 hold."
    assert tables.claims_summary({"a": "yes", "b": "no", "c": "undecided"}) == "1 of 3 hold, not: b (no); c (undecided)."
    table = tables.claims_table({"One": found, "Other": other}).splitlines()
    assert cells(table[0]) == ["", "One", "Other"] and len(table) == 9
    rows = tables.p_value_table(groups, paper=groups).splitlines()
    assert [cells(line)[0] for line in rows[2:]] == ["clean", "RAND", "FGSM", "BIM", "DeepFool", "CW"]
    assert cells(rows[3])[6] == cells(rows[3])[2] and len(cells(tables.p_value_table(groups).splitlines()[0])) == 6
    assert cells(rows[3])[4] == "100.0<br>[96,&nbsp;100]"


def test_panels_are_drawn_for_each_data_set(kinds):
    sets = {"fashion-mnist": kinds, "cifar10": {kind: kinds[kind] for kind in ("clean", "rand")}}
    bits = {name: available.bits_of(found) for name, found in sets.items()}
    panels = detection_figures.likelihood_panels(bits, thresholds={"cifar10": {"cut": 4.5}}).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["Fashion-MNIST", "CIFAR-10"]
    texts = [text.get_text() for text in panels[1].get_legend().get_texts()]
    assert texts[0].startswith("clean") and "cut (4.50)" in texts and len(panels[0].get_legend().get_texts()) == 6
    histograms = detection_figures.p_value_panels(bits).axes
    titles = [axes.get_title() for axes in histograms]
    assert titles == ["(a) clean", "(b) RAND", "(c) FGSM", "(d) BIM", "(e) DeepFool", "(f) CW", "(a) clean", "(b) RAND"]
    curve = roc(torch.rand(20), torch.rand(20))
    curves = detection_figures.roc_panels({name: dict.fromkeys(found, curve) for name, found in sets.items()}).axes
    assert [len(axes.get_lines()) for axes in curves] == [7, 3]


def test_bars_are_errors_with_intervals_and_the_papers_beside_them(kinds):
    (axes,) = detection_figures.error_bars({"cifar10": kinds}).axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([10.0] + [50.0] * 5)
    assert axes.patches[1].get_facecolor() == to_rgba(figures.COLOURS["rand"], 0.6)
    diamonds = [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() == "D"]
    assert diamonds == [8, 13, 85, 100, 94, 100]
    assert [tick.get_text() for tick in axes.get_xticklabels()][:2] == ["clean\nn = 200", "RAND\nn = 100"]


class StandIn:
    """A lab that has what it is told to have."""

    def __init__(self, data_set, profile, *, has_density=(), classifiers=()):
        self.data_set, self.has_density = data_set, data_set in has_density
        self.profile_name, self.profile = profile, PROFILES[profile]
        self.lacking = {} if data_set in classifiers else {ROWS[0]: "a classifier"}

    def missing(self, rows):
        assert list(rows) == [ROWS[0]]
        return self.lacking

    def record(self, condition):
        return condition


@pytest.mark.parametrize(
    ("densities", "classifiers", "found"),
    [("fc", "fc", "fc"), ("f", "fc", "f"), ("fc", "f", "f"), ("c", "c", "c")],
    ids=["all", "a density lacks", "a classifier lacks", "the other"],
)
def test_data_sets_without_a_density_or_a_resnet_are_left_out(monkeypatch, densities, classifiers, found):
    names = dict(zip("fc", EPS_ATTACK, strict=True))
    monkeypatch.setattr(available, "Lab", StandIn)
    existing = {"has_density": [names[d] for d in densities], "classifiers": [names[c] for c in classifiers]}
    labs = available.scored_labs("smoke", **existing)
    assert list(labs) == [names[n] for n in found]
    text = available.shown(labs)
    for name in EPS_ATTACK:
        assert available.TITLES[name] in text
    assert ("left out" in text) == (len(labs) < 2) and "the text does not fit" in text and "first 8 test images" in text


def test_a_chapter_says_how_many_images_it_rests_on():
    labs = {profile: {name: StandIn(name, profile) for name in EPS_ATTACK} for profile in ("laptop", "paper")}
    texts = {profile: available.shown(of) for profile, of in labs.items()}
    assert "the first 1,000 test images of Fashion-MNIST and of CIFAR-10, or" in texts["laptop"]
    assert "all test images of Fashion-MNIST and of CIFAR-10, or" in texts["paper"] and "**" not in "".join(texts.values())
    labs["laptop"]["cifar10"].profile = PROFILES["smoke"]
    text = available.shown(labs["laptop"])
    assert "1,000 test images of Fashion-MNIST and the first 8 test images of CIFAR-10, or" in text


def test_the_kinds_of_image_are_those_of_the_papers_figures():
    lab = StandIn("cifar10", "smoke")
    kinds = available.kinds_of_image(lab, 8)
    assert kinds == {"clean": Condition("cifar10")} | {attack: Condition("cifar10", attack, 8) for attack in ATTACKS}
