"""What lies on disk: records, and tensors that are dear to make."""

import pytest
import torch

from pixeldefend.study import Record, load_record, save_record
from pixeldefend.study.records import keep_tensor, kept_tensor


def record(labels, predictions, bits=None, **config):
    count = len(labels)
    return Record(config, list(range(count)), labels, predictions, bits or [1.0] * count)


def test_a_record_comes_back_as_it_was_written(tmp_path):
    first = record([1, 2], [1, 3], [2.5, 3.25], attack="fgsm", eps=8)
    save_record(first, tmp_path / "new folder" / "a.json")
    again = load_record(tmp_path / "new folder" / "a.json")
    assert again == first and again.accuracy == 0.5
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["a.json"], "nothing half-written is left"


@pytest.mark.parametrize("before, after", [("[1, 3]", "[1, 2]"), ('"eps": 8', '"eps": 9'), ("2.5", "2.6")])
def test_a_record_edited_by_hand_is_noticed(tmp_path, before, after):
    path = tmp_path / "a.json"
    save_record(record([1, 2], [1, 3], [2.5, 3.25], eps=8), path)
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ValueError, match="was changed after"):
        load_record(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {}}'], ids=["empty", "cut", "list", "incomplete"])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="a.json is no record"):
        load_record(tmp_path / "a.json")


def test_a_kept_tensor_comes_back_for_its_own_configuration_only(tmp_path):
    path, tensor = tmp_path / "new folder" / "a.safetensors", torch.rand(2, 1, 4, 4)
    assert kept_tensor({"eps": 8}, path) is None
    keep_tensor(tensor, {"eps": 8}, path)
    assert torch.equal(kept_tensor({"eps": 8}, path), tensor) and kept_tensor({"eps": 9}, path) is None
    assert [path.name for path in path.parent.iterdir()] == ["a.safetensors"], "nothing half-written is left"


def test_a_damaged_kept_tensor_is_no_tensor(tmp_path):
    path = tmp_path / "a.safetensors"
    keep_tensor(torch.rand(2, 1, 4, 4), {}, path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-4], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        assert kept_tensor({}, path) is None
    path.write_bytes(whole)
    assert kept_tensor({}, path) is not None
