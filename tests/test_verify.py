"""The check of committed records, on a toy study with real attacks and a real, small density."""

import json

import pytest
import torch
from nets import random_images, small_density
from torch import nn

from pixeldefend.images import Images
from pixeldefend.study import Condition, Lab, lab, load_record, save_record, verify
from pixeldefend.study.claims import choices
from pixeldefend.study.conditions import ATTACKS, Profile
from pixeldefend.study.detection import perturbations
from pixeldefend.study.endtoend.attacks import SIZES, Sizes, around_purification, packed, sizes_of, through_purification
from pixeldefend.study.endtoend.controls import controls
from pixeldefend.study.measured import CHECKS
from pixeldefend.study.purification import optimisation
from pixeldefend.study.records import read_signed, write_signed
from pixeldefend.study.verify import Disagreement, Verified, disagreements, tolerance

FM = "fashion-mnist"
CONDITIONS = [
    Condition(FM), Condition(FM, "rand", 8), Condition(FM, "fgsm", 8), Condition(FM, "deepfool", 8),
    Condition(FM, "deepfool", 8, rounding="none"), Condition(FM, "rand", 8, "feature-squeezing"),
    Condition(FM, "rand", 8, "pixeldefend", 4), Condition(FM, "fgsm", 25, "pixeldefend", 4),
]  # fmt: skip


class Brightness(nn.Module):
    """Classifies by mean brightness, in ten steps."""

    def __init__(self):
        super().__init__()
        self.register_buffer("levels", torch.linspace(0.3, 0.7, 10))

    def forward(self, pixels):
        return -100 * (pixels.mean((1, 2, 3))[:, None] - self.levels).square()


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A lab of twelve random images, with what `verify` needs to make one of its own."""
    density, net, images = small_density(1), Brightness().eval(), random_images(12, 1, 8, 8)
    labels = net(images / 255).argmax(1)

    def load(name, split, *, limit=None, root=None):
        return Images(name, split, images, labels, tuple("abcdefghij"), "toy")

    monkeypatch.setitem(lab.PROFILES, "laptop", Profile(images=12, dear_images=8, gallery=4))
    monkeypatch.setattr(lab, "load_images", load)
    monkeypatch.setattr(lab, "load_classifier", lambda *names, **options: net)
    monkeypatch.setattr(lab, "shipped_densities", lambda: [FM])
    for module in (verify, lab):
        monkeypatch.setattr(module, "saved_classifiers", lambda: [f"{FM}-resnet-normal"])
    monkeypatch.setattr(lab.PixelCNN, "from_pretrained", lambda name: density)
    monkeypatch.setattr(lab.paths, "ROOT", tmp_path)
    monkeypatch.delenv("PIXELDEFEND_RECOMPUTE", raising=False)
    here = Lab(FM, "laptop", records=tmp_path / "records")
    for condition in CONDITIONS:
        here.record(condition)
    return here


def check(study, **options) -> Verified:
    return verify.verify(study.records, "laptop", **options)


def rewrite(study, condition, **changes):
    """Change a record and sign it anew: a forger's edit, or what other code computed."""
    path = study.records / f"{condition.name}.json"
    record = load_record(path)
    save_record(type(record)(**{**vars(record), **changes}), path)


def test_records_that_hold_agree_whatever_images_are_chosen(study):
    files = {path: path.read_bytes() for path in study.records.parent.rglob("*") if path.is_file()}
    for seed in range(3):
        found = check(study, seed=seed)
        assert (found.records, found.differing, found.stale, found.unchecked, found.seed) == (8, 0, 0, 0, seed)
        assert found.images == 6 * 2 + 2 * 1, "two images of each record, one where a search attacks"
    assert {path: path.read_bytes() for path in study.records.parent.rglob("*") if path.is_file()} == files


def test_the_images_differ_from_build_to_build_and_can_be_repeated(study, monkeypatch):
    chosen = []

    def note(lab, records, conditions, positions):
        chosen.append((conditions, positions))
        return disagreements(lab, records, conditions, positions)

    monkeypatch.setattr(verify, "disagreements", note)
    runs = []
    for seed in (5, 6, 5):
        check(study, seed=seed)
        runs.append(list(chosen))
        chosen.clear()
    assert runs[0] == runs[2] != runs[1]
    monkeypatch.setattr(verify.time, "time", lambda: 1234.5)
    assert check(study).seed == 1234


@pytest.mark.parametrize("condition", CONDITIONS[1::2], ids=lambda condition: condition.name)
def test_a_record_with_other_predictions_is_named(study, condition):
    record = load_record(study.records / f"{condition.name}.json")
    rewrite(study, condition, predictions=[(p + 1) % 10 for p in record.predictions])
    with pytest.raises(Disagreement, match=rf"the record {condition.name}.json does not hold"):
        check(study, seed=1)


@pytest.mark.parametrize("condition", [CONDITIONS[1], CONDITIONS[2], CONDITIONS[7]], ids=lambda condition: condition.name)
def test_bits_are_compared_within_their_tolerance(study, condition):
    bits, allowed = load_record(study.records / f"{condition.name}.json").bits_per_dim, tolerance(condition)
    rewrite(study, condition, bits_per_dim=[b + 0.5 * allowed for b in bits])
    assert check(study, seed=1).differing == 0
    for value in (2 * allowed, float("nan")):
        rewrite(study, condition, bits_per_dim=[b + value for b in bits])
        with pytest.raises(Disagreement, match=condition.name):
            check(study, seed=1)


def test_records_of_the_other_precision_are_checked_less_narrowly(study):
    condition = CONDITIONS[7]
    record = load_record(study.records / f"{condition.name}.json")
    wide = tolerance(condition, same_precision=False)
    rewrite(study, condition, config=record.config | {"precision": "bfloat16"},
            bits_per_dim=[b + 0.9 * wide for b in record.bits_per_dim])  # fmt: skip
    found = check(study, seed=1)
    assert wide > tolerance(condition) and (found.records, found.differing) == (8, 0)
    rewrite(study, condition, bits_per_dim=[b + 1.1 * wide for b in record.bits_per_dim])
    with pytest.raises(Disagreement, match=condition.name):
        check(study, seed=1)


def test_other_labels_are_a_disagreement(study):
    rewrite(study, CONDITIONS[0], labels=[(label + 1) % 10 for label in study.test.labels.tolist()])
    with pytest.raises(Disagreement, match=f"{CONDITIONS[0].name}.json"):
        check(study, seed=1)


def test_a_single_image_may_differ_and_is_counted(study):
    """As a choice between two nearly equal levels does on another processor."""
    bits = load_record(study.records / f"{CONDITIONS[6].name}.json").bits_per_dim
    rewrite(study, CONDITIONS[6], bits_per_dim=[bits[0] + 1, *bits[1:]])
    found = [check(study, seed=seed) for seed in range(7)]
    assert {bool(one.differing) for one in found} == {True, False}, "whether the image was chosen differs"
    assert "that rounding may have changed" in str(max(found, key=lambda one: one.differing))
    rewrite(study, CONDITIONS[6], bits_per_dim=[b + 1 for b in bits[:6]] + bits[6:])
    with pytest.raises(Disagreement, match="disagree"):
        for seed in range(7):
            check(study, seed=seed)


def test_what_a_build_would_not_load_is_counted_but_not_checked(study, monkeypatch):
    study.measurement("counts", {}, lambda: {"n": 1})  # nothing that could be checked
    record = load_record(study.records / f"{CONDITIONS[0].name}.json")
    rewrite(study, CONDITIONS[0], config=record.config | {"density": "another"}, predictions=[0] * 12)
    found = check(study, seed=1)
    assert (found.records, found.stale, found.measurements) == (7, 1, 0)
    assert "not used, because of other weights or settings: 1" in str(found)
    monkeypatch.setattr(verify, "saved_classifiers", lambda: [])
    none = check(study, seed=1)
    assert (none.records, none.stale) == (0, 8) and str(none) == "no stored record of profile laptop was checked"


MADE = {
    "choices": lambda lab: choices.measured(lab),
    "changes-eps8": lambda lab: perturbations.changes(lab),
    "bits-deepfool-eps8-rounding-nearest": lambda lab: perturbations.bits_rounded_to_nearest(lab),
    "bits-carlini_wagner-eps8-rounding-nearest": lambda lab: perturbations.bits_rounded_to_nearest(lab),
    "lbfgs": lambda lab: optimisation.measured(lab, optimisation.SEARCHES["laptop"]),
    "end-to-end-unrolled": lambda lab: through_purification(lab, sizes_of(lab)),
    "end-to-end-controls": lambda lab: controls(lab, sizes_of(lab)),
}  # measurements, by their names


COLUMNS = {
    "choices": {"labels", "purified", "truncated", *(f"{attack} {of}" for attack in ("fgsm", "bim") for of in
                ("true", "predicted")), "squeezed fgsm", "squeezed bim"},
    "changes-eps8": {f"{kind}, {what}" for kind in (*ATTACKS, "DeepFool, nearest", "CW, nearest") for what in
                     ("mean", "largest")},
    "lbfgs": {"labels", *(f"{kind}, {what}" for kind in ("clean", "attacked", "greedy") for what in ("bits", "class"))},
    "end-to-end-unrolled": {"labels", "classes"},
    "end-to-end-controls": {"labels", "BIM, eps 8", "BIM, eps 25"},
}  # fmt: skip


@pytest.fixture
def measured(study, monkeypatch):
    """Makes a measurement of the study, small; gives its file."""
    monkeypatch.setitem(optimisation.SEARCHES, "laptop", optimisation.Search(images=3, starts=1, max_iterations=1))
    monkeypatch.setitem(SIZES[FM], "laptop", Sizes(images=2, steps=1, flow_images=2, bim_images=1, side=4))

    def make(name):
        MADE[name](study)
        return study.records / f"{FM}-{name}.json"

    return make


def forged(results):
    """Every number in some results, two more."""
    if isinstance(results, dict):
        return {key: forged(of) for key, of in results.items()}
    return [forged(of) for of in results] if isinstance(results, list) else results + 2


def contents(study) -> dict:
    return {path: path.read_bytes() for path in study.records.parent.rglob("*") if path.is_file()}


def test_every_measurement_that_can_be_made_again_in_part_is_tried_here():
    assert MADE.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", MADE)
def test_a_measurement_that_holds_agrees_whatever_images_are_chosen(study, measured, name):
    measured(name)
    files = contents(study)
    made = [path for path in study.records.iterdir() if "predictions" not in read_signed(path)]
    for seed in range(2):
        found = check(study, seed=seed)
        assert (found.measurements, found.differing, found.stale) == (len(made), 0, 0)
        assert found.measured == len(made) * CHECKS[name].images
    assert f" and {found.measured} images of {len(made)} measurements were computed again" in str(found)
    assert contents(study) == files


@pytest.mark.parametrize("side", [None, 4])
def test_parts_of_images_are_checked_as_they_were_attacked(study, measured, monkeypatch, side):
    monkeypatch.setitem(SIZES[FM], "laptop", Sizes(images=2, steps=1, flow_images=2, bim_images=1, side=side))
    measured("end-to-end-unrolled")
    assert (check(study, seed=1).measurements, check(study, seed=1).differing) == (1, 0)


@pytest.mark.parametrize("name", MADE)
def test_a_measurement_that_was_forged_is_named(study, measured, name):
    path = measured(name)
    content = read_signed(path)
    write_signed(content | {"results": forged(content["results"])}, path)
    with pytest.raises(Disagreement, match=rf"the measurement {path.name} does not hold .* computed again"):
        check(study, seed=1)


@pytest.mark.parametrize("name", MADE)
def test_each_column_of_a_measurement_is_compared(study, measured, name):
    measured(name)
    of, part = CHECKS[name], verify._Part(study, [1])
    stored = of.stored(study)
    columns = of.again(part).keys()
    assert columns == COLUMNS.get(name, {"bits_per_dim"})
    for what in (None, *columns):
        told = {**stored, what: forged(stored[what])} if what else stored
        assert of.disagreeing(told, part, [1], verify.TOLERANCES) == [what is not None], what


@pytest.mark.parametrize("name", MADE)
def test_a_measurement_with_other_weights_is_left_alone(study, measured, name):
    path = measured(name)
    content = read_signed(path)
    key = "rand" if name.startswith("changes") else "classifier"
    write_signed(content | {"config": content["config"] | {key: "another"}, "results": {}}, path)
    files = contents(study)
    assert check(study, seed=1).stale == 1 and contents(study) == files


def test_measurements_of_another_profile_are_left_alone(study, measured):
    measured("lbfgs")
    files = contents(study)
    found = verify.verify(study.records, "smoke", seed=1)
    assert (found.stale, found.records, found.measurements) == (len(CONDITIONS) + 1, 0, 0) and contents(study) == files


@pytest.mark.parametrize(("name", "key"), [("choices", "purified"), ("end-to-end-unrolled", "clean")])
def test_a_single_image_of_a_measurement_may_differ(study, measured, name, key):
    """Of the second one there are but two."""
    path = measured(name)
    content = read_signed(path)
    seen = content["results"][key]
    seen = seen["predictions"] if key == "clean" else seen
    seen[0] = (seen[0] + 1) % 10
    write_signed(content, path)
    found = [check(study, seed=seed).differing for seed in range(7)]
    assert 0 in found and max(found) > 0, "whether the image was chosen differs"


def test_measurements_are_not_begun_after_the_time(study, measured):
    measured("choices")
    found = check(study, seed=1, seconds=-1)
    assert (found.measurements, found.unchecked) == (0, len(CONDITIONS) + 1)


@pytest.fixture
def attacked(study):
    """The study with what is kept of the attack on the whole system; gives its file."""
    around_purification(study, sizes_of(study))
    return study.records / f"{FM}-end-to-end-bpda.json"


def test_the_kept_images_of_the_attack_on_the_whole_system_are_checked(study, attacked):
    found = check(study, seed=1)
    assert (found.attacks, found.differing, found.stale) == (2 * 4, 0, 0)
    assert "of the attack on the whole system 8 stored images do again" in str(found)


@pytest.mark.parametrize("what", ["predictions", "bits", "images"])
def test_kept_images_that_do_not_do_what_is_said_of_them_are_named(study, attacked, what):
    content = read_signed(attacked)
    for eps, of in content["results"]["attacks"].items():
        if what == "predictions":
            of["bpda"]["predictions"] = [(p + 1) % 10 for p in of["bpda"]["predictions"]]
        elif what == "bits":
            of["bpda"]["bits"] = [b + 0.01 for b in of["bpda"]["bits"]]
        else:
            content["results"]["gallery"][eps]["bpda"] = packed(255 - study.test.images[:4])
    write_signed(content, attacked)
    with pytest.raises(Disagreement, match=r"fashion-mnist-end-to-end-bpda.json does not hold .* 8 do not do what it says"):
        check(study, seed=1)


def test_some_kept_images_may_be_seen_as_another_class_and_no_more(study, attacked):
    content = read_signed(attacked)
    of = content["results"]["attacks"]["8"]["bpda"]
    of["predictions"] = [(p + 1) % 10 for p in of["predictions"]]
    write_signed(content, attacked)
    assert check(study, seed=1).attacks == 4
    of = content["results"]["attacks"]["25"]["bpda"]
    of["predictions"][0] = (of["predictions"][0] + 1) % 10
    write_signed(content, attacked)
    with pytest.raises(Disagreement, match="of 8 attacked images that it keeps 5 do not"):
        check(study, seed=1)


def test_an_attack_on_another_system_is_not_checked(study, attacked):
    content = read_signed(attacked)
    write_signed(content | {"config": content["config"] | {"density": "another"}}, attacked)
    found = check(study, seed=1)
    assert (found.attacks, found.stale) == (0, 1)


def test_it_begins_nothing_after_its_time(study):
    found = check(study, seed=1, seconds=-1)
    assert (found.records, found.images, found.unchecked) == (0, 0, 8)


def test_a_record_edited_by_hand_is_refused(study):
    path = study.records / f"{CONDITIONS[0].name}.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"predictions": [1] * 12}))
    with pytest.raises(ValueError, match=f"{CONDITIONS[0].name}.json was changed"):
        check(study)


def test_a_folder_without_records_is_fine(tmp_path):
    assert verify.verify(tmp_path / "none", "laptop").records == 0
