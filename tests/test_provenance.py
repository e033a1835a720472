"""The tables of records and of models that a build writes."""

import json

import pytest

from pixeldefend import load_classifier, paths
from pixeldefend.fingerprint import fingerprint
from pixeldefend.study import Condition, Record, save_record
from pixeldefend.study.provenance import Weights, record_tables, weights_in
from pixeldefend.study.records import USED, load_record, write_signed
from pixeldefend.study.shipped.models import write_model_pages

MADE = {"seconds": 12.5, "device": "cpu", "threads": 2, "torch": "2.0"}
KNOWN = [Weights("fashion-mnist-vgg-normal", "classifier", "00aa"), Weights("cifar10", "density", "00bb")]


@pytest.fixture
def root(tmp_path):
    condition = Condition("fashion-mnist", "deepfool", 8, "pixeldefend", 32, network="vgg", rounding="nearest")
    config = {**vars(condition), "images": 2, "classifier": "00aa", "density": "00cc"}
    record = Record(config, [0, 1], [1, 2], [1, 2], [2.5, 3.5], MADE)
    save_record(record, tmp_path / "data/records/laptop/fashion-mnist-a.json")
    measured = {"config": {"images": 1000, "weights": [{"density": "00bb"}]}, "results": {"of": "00aa"}, "made": MADE}
    write_signed(measured, tmp_path / "data/records/laptop/cifar10-b.json")
    machine = {"device": "cpu", "threads": 1, "torch": "2.1", "name": "x86_64", "instructions": "AVX2"}
    speed = {"fingerprint": "00bb", "seconds": 3.25, "machine": machine}
    write_signed(speed, tmp_path / "data/records/speed/cifar10-cpu.json")
    return tmp_path


USES = {"05_b": ["data/records/laptop/fashion-mnist-a.json", "data/records/laptop/cifar10-b.json"],
        "06_c": ["data/records/laptop/fashion-mnist-a.json", "data/records/speed/cifar10-cpu.json"]}  # fmt: skip


def rows(text):
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if "{download}" in line]
    return {row[0].split("`")[1].split()[0]: row for row in cells}


def test_each_used_record_has_a_row_that_says_where_it_came_from(root):
    text = record_tables(root, USES, KNOWN)
    assert [line for line in text.splitlines() if "{dropdown}" in line] == [
        "::::{dropdown} CIFAR-10: 2 records", "::::{dropdown} Fashion-MNIST: 1 record",
    ]  # fmt: skip
    found = rows(text)
    assert found["fashion-mnist-a"] == [
        "{download}`fashion-mnist-a <../data/records/laptop/fashion-mnist-a.json>`",
        "DeepFool with eps 8; rounding: nearest; on vgg, normal; pixeldefend 32", "2", "fashion-mnist-vgg-normal `00aa`",
        "12.5&nbsp;s, cpu, 2 threads, torch 2.0", "{doc}`5 <notebooks/05_b>`, {doc}`6 <notebooks/06_c>`",
    ]  # fmt: skip
    (root / "data/records/earlier/cifar10-00cc").mkdir(parents=True)
    save_record(load_record(root / USES["05_b"][0]), root / "data/records/earlier/cifar10-00cc/fashion-mnist-a.json")
    again = rows(record_tables(root, USES | {"07_d": ["data/records/earlier/cifar10-00cc/fashion-mnist-a.json"]}, KNOWN))
    assert "cifar10-00cc/fashion-mnist-a" in again and "fashion-mnist-a" in again, "told apart by their folders"
    assert found["cifar10-b"][1:4] == ["measurement", "1,000", "cifar10 `00bb`"], "at any depth, but not a result"
    assert found["cifar10-cpu"][3:5] == ["cifar10 `00bb`", "3.25&nbsp;s, cpu (x86_64, AVX2), 1 thread, torch 2.1"]


def test_weights_that_are_not_at_hand_are_shown_by_their_fingerprints(root):
    old, kept = "0123456789abcdef", root / "data/records/earlier/cifar10-01234567/cifar10-a.json"
    write_signed({"config": {"density": old, "classifier": "00aa"}, "results": {"classifier": "fedcba9876543210"}}, kept)
    speed = root / "data/records/speed/cifar10-cpu.json"
    write_signed({"density": "cifar10", "fingerprint": old, "seconds": 1.0, "machine": {}}, speed)
    used = {"05_b": [path.relative_to(root).as_posix() for path in (kept, speed)]}
    found = rows(record_tables(root, used, KNOWN))
    assert found["cifar10-01234567/cifar10-a"][3] == f"density `{old}`, not shipped<br>fashion-mnist-vgg-normal `00aa`"
    assert found["cifar10-cpu"][3] == f"density `{old}`, not shipped"


def test_damaged_and_missing_records_are_refused(root):
    path = root / USES["05_b"][0]
    path.write_text(path.read_text().replace("3.5", "3.6"))
    with pytest.raises(ValueError, match="fashion-mnist-a.json was changed"):
        record_tables(root, USES, KNOWN)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        record_tables(root, USES, KNOWN)


def test_reading_and_writing_a_record_is_noted_where_a_build_asks(root, monkeypatch):
    path, listing = root / USES["05_b"][0], root / "used.txt"
    monkeypatch.setenv(USED, str(listing))
    save_record(load_record(path), root / "again.json")
    assert listing.read_text().splitlines() == [str(path), str(root / "again.json")]


def test_the_shipped_weights_are_known_by_their_fingerprints():
    found = {weights.name: weights for weights in weights_in(paths.WEIGHTS)}
    scores = json.loads((paths.WEIGHTS / "pixelcnn" / "fashion-mnist" / "scores.json").read_text())
    assert found["fashion-mnist"].fingerprint == scores["fingerprint"] and found["fashion-mnist"].kind == "density"
    net = load_classifier("fashion-mnist", "resnet", training="adversarial-fgsm")
    known = found["fashion-mnist-resnet-adversarial-fgsm"]
    assert known.fingerprint == fingerprint(net) and known.kind == "classifier"


def test_the_models_page_lists_what_there_is(tmp_path):
    book, weights = tmp_path / "book", tmp_path / "weights"
    (book / "models").mkdir(parents=True)
    (book / "models" / "gone.md").write_text("# A density that is no more\n")
    write_model_pages(book, weights)
    assert (book / "models.md").read_text().count("None yet.") == 2 and not (book / "models" / "gone.md").exists()

    settings = {"training": "normal", "epochs": 3, "milestones": [0.5, 0.75], "start": "00aa"}
    write(weights / "classifiers/cifar10-resnet-normal/config.json",
          {"data_set": "cifar10", "network": "resnet", "training": "normal", "settings": settings})  # fmt: skip
    write(weights / "classifiers/cifar10-resnet-normal/scores.json",
          {"test_accuracy": 0.9, "test_images": 1000, "images_seen": 150000})  # fmt: skip
    write(weights / "pixelcnn/cifar10/scores.json",
          {"settings": {"data_set": "cifar10"}, "test_bits_per_dim": 3.25, "test_images": 1000, "images_seen": 5,
           "fingerprint": "00bb"})  # fmt: skip
    card = weights / "pixelcnn/cifar10/README.md"
    card.write_text("---\nlicense: mit\n---\n\n# A card\n\n![Samples](samples.png)\n\n---\n")
    (card.parent / "samples.png").write_bytes(b"a picture")
    write_model_pages(book, weights, KNOWN)
    text = (book / "models.md").read_text()
    assert "| **90.0**<br>[88.0,&nbsp;91.7] | 1,000 | 3 | 150,000 |" in text
    assert "| milestones&nbsp;0.5/0.75, started from fashion-mnist-vgg-normal |" in text
    assert "| {doc}`cifar10 <models/cifar10>` | CIFAR-10 | 3.250 | 1,000 | 5 | `00bb` |" in text
    assert (book / "models/cifar10.md").read_text() == "# A card\n\n![Samples](cifar10.png)\n\n---\n"
    assert (book / "models/cifar10.png").read_bytes() == b"a picture"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
