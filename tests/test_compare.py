"""What a build that computes everything anew says of the results that it replaces."""

import os
from dataclasses import replace

import pytest

from pixeldefend.study import Record, save_record
from pixeldefend.study.compare import compare, set_aside
from pixeldefend.study.records import write_signed

FIRST = Record({"eps": 8}, [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 9], [2.0, 3.0, 4.0, 5.0])
SECOND = Record({"eps": 2}, [0, 1], [0, 1], [0, 1], [])
MEASURED = {"config": {"eps": 8}, "results": {"seen": [1, 2]}}


@pytest.fixture
def folders(tmp_path):
    """Three files, and copies of them set aside."""
    records, before = tmp_path / "records", tmp_path / "stage" / "before"
    save_record(FIRST, records / "first.json")
    save_record(SECOND, records / "second.json")
    write_signed(MEASURED, records / "measured.json")
    set_aside(records, before)
    return before, records


def test_the_same_results_again_differ_by_nothing(folders):
    found = compare(*folders, "laptop", since=0)
    assert str(found) == (
        "2 records of profile laptop were computed anew and compared with those that they replace: of 6 images 0 are "
        "predicted as another class, and a record's mean bits per dimension by at most 0.0000; of 1 measurements 1 are the "
        "same to the last digit"
    )


def test_differences_are_counted_and_the_record_least_alike_is_named(folders):
    before, records = folders
    save_record(replace(FIRST, predictions=[0, 1, 2, 3], bits_per_dim=[2.0, 3.0, 4.0, 5.5]), records / "first.json")
    save_record(replace(SECOND, predictions=[1, 0]), records / "second.json")
    write_signed(MEASURED | {"results": {"seen": [1, 3]}}, records / "measured.json")
    found = compare(before, records, "laptop", since=0)
    assert (found.records, found.images, found.changed, found.measurements, found.same) == (2, 6, 3, 1, 0)
    assert (found.points, found.least_alike, found.bits) == (100.0, "second", 0.125)
    assert "3 are predicted as another class, a record's accuracy differs by at most 100.0 points (second)" in str(found)
    assert "0.1250" in str(found)


def test_other_settings_and_damage_are_not_compared(folders):
    before, records = folders
    save_record(replace(FIRST, config={"eps": 16}), records / "first.json")
    (before / "second.json").write_text((before / "second.json").read_text().replace("[0, 1]", "[1, 0]", 1))
    (before / "measured.json").write_text("{")
    found = compare(before, records, "laptop", since=0)
    assert (found.records, found.measurements, found.other) == (0, 0, 3)
    assert str(found) == "no stored record of profile laptop was replaced by one that can be compared with it"


def test_only_what_was_written_since_counts_and_what_was_there(folders):
    before, records = folders
    os.utime(records / "first.json", (1000, 1000))
    os.utime(records / "measured.json", (2000, 2000))
    save_record(SECOND, records / "third.json")
    found = compare(before, records, "laptop", since=1500)
    assert (found.records, found.measurements, found.other) == (1, 1, 0)


def test_what_is_set_aside_takes_the_place_of_what_lay_there(folders):
    before, records = folders
    (records / "first.json").unlink()
    set_aside(records, before)
    assert sorted(path.name for path in before.iterdir()) == ["measured.json", "second.json"]
    set_aside(records / "missing", before)
    assert not list(before.iterdir())
