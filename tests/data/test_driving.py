from collections import Counter

import pytest

from domainnorm.data.dataset import Record
from domainnorm.data.driving import check_masks, found, image_size, with_split
from domainnorm.errors import DataError


def records(domain: str) -> list[Record]:
    return [
        Record(f"{domain}/{scene}/{frame}.png", domain, -1, f"scene_{scene}", "train")
        for scene in range(10)
        for frame in range(3)
    ]


def test_files_are_sorted_and_relative(tmp_path):
    for name in ("b.png", "a.png", "c.txt"):
        (tmp_path / name).touch()
    assert found(tmp_path, "*.png") == ["a.png", "b.png"]


def test_nothing_found_names_the_pattern_and_the_page(tmp_path):
    with pytest.raises(DataError, match=r"no file images/\*\.png; docs/data_driving\.md"):
        found(tmp_path, "images/*.png")


def test_missing_mask_is_named_with_its_image(tmp_path):
    (tmp_path / "there.png").touch()
    pair = [
        Record("a.jpg", "day", -1, "a", "train", "there.png"),
        Record("b.jpg", "day", -1, "b", "train", "gone.png"),
    ]
    with pytest.raises(DataError, match=r"gone\.png: missing, the mask of b\.jpg \(1 of 2 images"):
        check_masks(tmp_path, pair, "*.png")


def test_groups_stay_whole():
    splits: dict[str, set[str]] = {}
    for record in with_split(records("day"), "val", 0.3, 0):
        splits.setdefault(record.group, set()).add(record.split)
    assert all(len(of_group) == 1 for of_group in splits.values())


def test_fraction_is_moved():
    counts = Counter(record.split for record in with_split(records("day"), "val", 0.3, 0))
    assert counts == {"train": 21, "val": 9}


def test_scenes_move_together_in_all_domains_of_a_stratum():
    clear = with_split(records("clear"), "val", 0.3, 5, stratum="scenes")
    both = with_split([*records("fog"), *records("haze")], "val", 0.3, 5, stratum="scenes")
    moved = {record.group for record in clear if record.split == "val"}
    assert {record.group for record in both if record.split == "val"} == moved


def test_size_of_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        image_size(tmp_path / "a.png")
