"""The paper's grid of conditions, the tables and the figures."""

import json

import pytest
import torch
from matplotlib.figure import Figure
from nets import random_images

from pixeldefend import paths, roc
from pixeldefend.study import Condition, Record, figures, tables
from pixeldefend.study.conditions import (
    ALL_ATTACKS,
    ATTACKS,
    EPS_ATTACK,
    LOWER_ROWS,
    PROFILES,
    PURIFYING,
    ROUNDINGS,
    ROWS,
    SEARCHED,
    TUNED,
    UPPER_ROWS,
    attacks_with_eps,
    paper_accuracy,
)


def record(right: int, count: int, *, first: bool = True) -> Record:
    """Of ``count`` images, the first (or the last) ``right`` are classified correctly."""
    predictions = [0] * right + [1] * (count - right)
    return Record({}, list(range(count)), [0] * count, predictions if first else predictions[::-1], [])


@pytest.mark.parametrize(
    ("condition", "eps", "accuracy"),
    [
        (Condition("fashion-mnist"), 8, 93),
        (Condition("fashion-mnist", "bim", 25), 25, 0),
        (Condition("fashion-mnist", "carlini_wagner", 8), 8, 20),
        (Condition("fashion-mnist", "fgsm", 25, defence="pixeldefend", eps_defend=32), 25, 74),
        (Condition("cifar10", "fgsm", 8, defence="pixeldefend", eps_defend=16), 8, 46),
        (Condition("cifar10", "deepfool", 16, "feature-squeezing", training="adversarial-fgsm"), 16, 85),
        (Condition("fashion-mnist", "fgsm", 7), 7, None),
        (Condition("fashion-mnist", TUNED, 8), 8, None),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_the_papers_numbers_are_found(condition, eps, accuracy):
    assert paper_accuracy(condition, eps=eps) == accuracy


@pytest.mark.parametrize(("data_set", "table"), [("fashion-mnist", "table_1"), ("cifar10", "table_2")])
def test_the_rows_are_all_of_the_papers(data_set, table):
    found, weaker = 0, []
    for row in ROWS:
        for eps in EPS_ATTACK[data_set]:
            cells = [row.condition(data_set)] + [row.condition(data_set, attack, eps) for attack in ATTACKS]
            values = [paper_accuracy(cell, eps=eps) for cell in cells]
            assert None not in values
            if paper_accuracy(cells[-1], eps=eps, strongest=True) != min(values[1:]):
                weaker.append((row.title, eps))
            found += len(values) + 1
    cells = json.loads((paths.DATA / "paper" / "tables.json").read_text())[table]["cells"]
    assert found == len(cells)
    # as printed: 69 in the last column, 68 after FGSM
    assert weaker == ([("ResNet, adversarial FGSM + PixelDefend", 8)] if data_set == "cifar10" else [])
    assert {row.defence for row in LOWER_ROWS} == set(PURIFYING) and len(UPPER_ROWS) == 7


def test_conditions_have_distinct_names():
    every = set()
    for data_set in EPS_ATTACK:
        for row in ROWS:
            every |= {row.condition(data_set, attack, eps) for attack, eps in attacks_with_eps(data_set, ALL_ATTACKS)}
        for rounding in ROUNDINGS:
            every |= {Condition(data_set, attack, 8, rounding=rounding) for attack in SEARCHED}
    # rows x (clean + attacks x eps) of each data set; two more roundings of two attacks
    assert len({condition.name for condition in every}) == len(every) == 11 * (1 + 6 * 2) + 11 * (1 + 6 * 3) + 2 * 2 * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_set": "mnist"}, "data set"),
        ({"attack": "strongest", "eps": 8}, "attack"),
        ({"defence": "prayer"}, "defence"),
        ({"attack": "deepfool", "eps": 8, "rounding": "down"}, "rounding"),
        ({"attack": "fgsm", "eps": 8, "rounding": "nearest"}, "not for fgsm"),
        ({"attack": TUNED, "eps": 8, "rounding": "none"}, "not for carlini_wagner_tuned"),
        ({"attack": "deepfool", "eps": 8, "rounding": "none", "defence": "feature-squeezing"}, "colour levels"),
        ({"eps": 8}, "clean"),
        ({"eps_defend": 32}, "eps_defend"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_conditions_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Condition(**{"data_set": "fashion-mnist"} | options)


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (Condition("cifar10", "bim", 8), True),
        (Condition("cifar10", TUNED, 8, training="adversarial-fgsm"), True),
        (Condition("cifar10", defence="pixeldefend", eps_defend=16, network="vgg"), True),
        (Condition("cifar10", network="vgg"), False),
        (Condition("cifar10", training="label-smoothing"), False),
        (Condition("cifar10", defence="feature-squeezing"), False),
        (Condition("cifar10", "deepfool", 8, rounding="nearest"), False),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_bits_are_wanted_where_the_density_purifies_or_detects(condition, wanted):
    assert condition.wants_bits is wanted


def test_a_profile_has_fewer_images_where_it_is_dear():
    laptop, data_set = PROFILES["laptop"], "fashion-mnist"
    attacks = [Condition(data_set, attack, 8 if attack != "clean" else 0) for attack in ("clean", *ALL_ATTACKS)]
    assert [laptop.images_for(a) for a in attacks] == [1000, 1000, 1000, 1000, 200, 200, 200]
    assert [laptop.images_for(row.condition(data_set, "bim", 8)) for row in ROWS] == [1000] * 11
    assert {PROFILES["paper"].images_for(a) for a in attacks} == {None}


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962), (900, 1000, 0.8799, 0.9171)],
)
def test_wilson_intervals(successes, trials, low, high):
    assert tables.wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_wilson_intervals_contain_the_proportion_to_the_last_bit():
    """At its ends, where the exact bound is the proportion itself, a figure would refuse an error bar of -1e-16."""
    for trials in range(1, 200):
        for successes in (0, trials):
            low, high = tables.wilson_interval(successes, trials)
            assert low <= successes / trials <= high


@pytest.mark.parametrize(
    ("successes", "trials", "text"), [(0, 1000, "[0,&nbsp;1]"), (900, 1000, "[87,&nbsp;92]"), (50, 100, "[40,&nbsp;60]")]
)
def test_printed_intervals_are_rounded_outward(successes, trials, text):
    assert tables.percent_interval(successes, trials) == text


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="trials"):
        tables.wilson_interval(successes, trials)


def test_the_strongest_attack_and_the_worst_case_per_image_differ():
    records = {"rand": record(3, 4), "fgsm": record(2, 4, first=False)}
    assert tables.strongest(records) == ("fgsm", 0.5)
    assert tables.worst_case(records) == 0.25
    with pytest.raises(ValueError, match="rand"):
        tables.strongest({})
    with pytest.raises(ValueError, match="rand"):
        tables.strongest(records | {TUNED: record(0, 4)})


def test_records_of_different_numbers_of_images_are_compared_on_those_that_all_have():
    records = {"bim": record(6, 10), "deepfool": record(4, 5, first=False)}
    assert tables.strongest(records) == ("bim", 0.6)
    assert tables.worst_case(records) == 0.8, "of the first five, one is misclassified after DeepFool and none after BIM"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def made(condition: Condition) -> Record:
    """More images without a dear attack; CW is the strongest on undefended networks, BIM on defended ones."""
    if condition.attack in SEARCHED or condition.attack == TUNED:
        return record(100 if condition.attack != "carlini_wagner" or condition.defence != "none" else 20, 200)
    return record(100 if condition.attack == "bim" else 300, 400)


def test_a_table_has_the_papers_columns_and_beside_each_number_its_interval_its_images_and_the_papers_number():
    table = tables.accuracy_table((ROWS[0], LOWER_ROWS[0]), made, "fashion-mnist", eps=25, attacks=ALL_ATTACKS)
    head, rule, normal, purified = table.splitlines()
    assert "tuned" in head and "tuned" not in tables.accuracy_table(ROWS[:1], made, "fashion-mnist", eps=25)
    few, many = "n&nbsp;=&nbsp;200", "n&nbsp;=&nbsp;400"
    assert cells(head) == [
        "", f"clean<br>{many}", f"RAND<br>{many}", f"FGSM<br>{many}", f"BIM<br>{many}", f"DeepFool<br>{few}", f"CW<br>{few}",
        "strongest", f"CW, tuned<br>{few}",
    ]  # fmt: skip
    assert len(cells(rule)) == len(cells(normal)) == len(cells(purified)) == 9
    assert cells(normal)[:3] == [
        "ResNet, normal",
        "**75.0**<br>[70,&nbsp;79]<br>paper&nbsp;93 (−18.0)",
        "**75.0**<br>[70,&nbsp;79]<br>paper&nbsp;71 (+4.0)",
    ]
    assert cells(normal)[6:] == [
        "**10.0**<br>[6,&nbsp;15]<br>paper&nbsp;1 (+9.0)",
        f"**10.0**<br>CW<br>[6,&nbsp;15]<br>{few}<br>paper&nbsp;0 (+10.0)",
        "**50.0**<br>[43,&nbsp;57]",
    ]
    assert cells(purified)[7] == f"**25.0**<br>BIM<br>[21,&nbsp;30]<br>{many}<br>paper&nbsp;74 (−49.0)"


def test_a_table_of_some_attacks_has_no_other_columns():
    head, _, *lines = tables.accuracy_table(UPPER_ROWS, made, "cifar10", eps=2, attacks=("rand", "bim")).splitlines()
    heads = [cell.split("<br>")[0] for cell in cells(head)]
    assert heads == ["", "clean", "RAND", "BIM", "strongest"] and len(lines) == 7


class MadeLab:
    data_set, record = "cifar10", staticmethod(made)


def test_tables_for_every_eps_are_numbered_ones():
    parts = tables.table_parts(MadeLab, ROWS[:2], title="CIFAR-10", name="tbl-upper")
    assert parts.count(":::{table} CIFAR-10, attacks with $\\epsilon = ") == 3
    names = [line[7:] for line in parts.splitlines() if line.startswith(":name:")]
    assert names == [f"tbl-upper-{eps}" for eps in (2, 8, 16)]
    assert tables.table_parts(MadeLab, [], title="CIFAR-10", name="tbl-upper") == ""


def test_the_strongest_attack_both_ways():
    columns = {(ROWS[0], a, e): made(ROWS[0].condition("fashion-mnist", a, e)) for a in ATTACKS for e in (8, 25)}
    columns[ROWS[0], "rand", 8] = record(390, 400, first=False)  # wrong about the first ten only
    head, _, line = tables.strongest_table(columns, ROWS[:1], "fashion-mnist").splitlines()
    assert cells(head)[1:3] == ["strongest attack, eps 8", "worst per image, eps 8"] and len(cells(head)) == 5
    assert cells(line)[1] == "**10.0**<br>CW<br>[6,&nbsp;15]<br>n&nbsp;=&nbsp;200<br>paper&nbsp;0 (+10.0)"
    assert cells(line)[2] == "**5.0**<br>[2,&nbsp;9]<br>n&nbsp;=&nbsp;200<br>one attack: 10.0"  # of 20


def test_records_of_all_images_stand_beside_those_of_fewer():
    def stored(condition: Condition) -> Record | None:
        return record(9000, 10000) if condition.attack in ("clean", "bim") and condition.eps in (0, 25) else None

    table = tables.all_images_table(ROWS[:1], stored, lambda condition: record(20, 200), "fashion-mnist").splitlines()
    assert [cells(line)[:2] for line in table[2:]] == [["ResNet, normal", "clean"], ["ResNet, normal", "BIM, eps 25"]]
    assert cells(table[3])[2:] == ["**90.0**<br>[89.3,&nbsp;90.6]<br>n&nbsp;=&nbsp;10000<br>paper&nbsp;0 (+90.0)",
                                   "**10.0**<br>[6,&nbsp;15]<br>n&nbsp;=&nbsp;200"]  # fmt: skip
    for nothing in (None, record(3, 6)):
        assert tables.all_images_table(ROWS[:1], lambda _, found=nothing: found, lambda _: record(20, 200), "cifar10") == ""


def test_the_tuned_attack_stands_beside_the_same_images_clean_and_after_bim():
    """Of those the first 200 are right less often here than all."""
    def found(condition: Condition) -> Record:
        if condition.attack == TUNED:
            return record(20 if condition.defence == "none" else 160, 200)
        return record(800 if condition.attack == "clean" else 900, 1000, first=False)

    head, _, *lines = tables.tuned_table(found, UPPER_ROWS[0], LOWER_ROWS[0], "cifar10").splitlines()
    assert len(cells(head)) == 6 and [cells(line)[0] for line in lines] == ["2", "8", "16"]
    assert cells(lines[0])[1:] == ["200", "**10.0**<br>[6,&nbsp;15]", "**80.0**<br>[73,&nbsp;85]", "**0.0**<br>[0,&nbsp;2]",
                                   "**50.0**<br>[43,&nbsp;57]"]  # fmt: skip


def test_a_table_of_roundings_shows_what_quantisation_does_alone():
    right = {"none": 20, "nearest": 160, "outward": 60}

    def found(condition: Condition) -> Record:
        assert (condition.network, condition.training, condition.defence) == ("vgg", "normal", "none")
        return record(right[condition.rounding], 200)

    head, _, *lines = tables.rounding_table(found, "cifar10", network="vgg").splitlines()
    assert cells(head) == ["attack", "n", "floats", "rounded to nearest", "rounded outward"]
    assert [cells(line)[0] for line in lines] == [f"{name}, eps {eps}" for name in ("DeepFool", "CW") for eps in (2, 8, 16)]
    assert cells(lines[0])[1:] == [
        "200",
        "**10.0**<br>[6,&nbsp;15]<br>paper&nbsp;57 (−47.0)",
        "**80.0**<br>[73,&nbsp;85]",
        "**30.0**<br>[24,&nbsp;37]",
    ]


def test_figures_draw_what_they_are_given():
    axes = Figure().subplots()
    figures.draw_bits(axes, {"clean": torch.rand(50), "fgsm": torch.rand(50) + 1})
    assert [text.get_text()[:5] for text in axes.get_legend().get_texts()] == ["clean", "FGSM "]
    images = random_images(3, 1, 8, 8)
    shown = figures.gallery({"one": images, "two": images[:2]}, captions={"two": ["x", "y"]})
    assert sum(bool(axes.images) for axes in shown.axes) == 5
    assert shown.axes[4].get_xlabel() == "y"


def test_every_kind_of_image_has_its_own_colour_and_line():
    assert set(figures.COLOURS) == set(figures.STYLES) == {"clean", *ALL_ATTACKS}
    for looks in (figures.COLOURS, figures.STYLES):
        assert len(set(looks.values())) == len(looks)


def test_curves_look_like_their_attack_and_are_wider_for_a_larger_eps():
    curve = roc(torch.rand(20), torch.rand(20))
    names = ["FGSM, eps 2", "FGSM, eps 8", "CW, eps 2", "CW, tuned, eps 2"]
    axes = Figure().subplots()
    figures.draw_roc(axes, {name: curve for name in names})
    lines = axes.get_lines()[1:]
    assert [line.get_color() for line in lines] == [figures.COLOURS[k] for k in ("fgsm", "fgsm", "carlini_wagner", TUNED)]
    assert lines[0].get_linewidth() < lines[1].get_linewidth() and lines[2].get_linewidth() == lines[3].get_linewidth()


def test_a_gallery_of_attacks_shows_each_image_above_its_magnified_change():
    clean = random_images(1, 3, 8, 8)[0].clamp(8, 247)
    moved = clean.clone()
    moved[0, 0, 0] += 8
    moved[2, 1, 1] -= 8
    shown = figures.attack_gallery(clean, {"bim": moved, "nothing": clean}, eps=8, captions={"bim": "coat\n3.10"})
    above, below = shown.axes[:3], shown.axes[3:]
    assert [axes.get_title() for axes in above] == ["clean", "BIM", "nothing"]
    assert [axes.get_xlabel() for axes in below] == ["", "coat\n3.10", ""]
    assert torch.equal(torch.tensor(above[1].images[0].get_array()), moved.permute(1, 2, 0))
    change = torch.tensor(below[1].images[0].get_array())
    assert change[0, 0].tolist() == [255, 128, 128] and change[1, 1].tolist() == [128, 128, 1]
    assert change.ne(128).sum() == 2 and (below[2].images[0].get_array() == 128).all()
