from collections import Counter

import pytest

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.driving import check_masks, draw_scenes, found
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


def test_remains_of_archives_are_no_files(tmp_path):
    for name in ("a.png", "._a.png"):
        (tmp_path / name).touch()
    assert found(tmp_path, "*.png") == ["a.png"]


def test_fraction_of_the_scenes_is_moved():
    counts = Counter(record.split for record in draw_scenes(records("day"), 0.3, 0))
    assert counts == {"train": 21, "val": 9}


def test_scenes_move_together_in_all_domains_and_datasets():
    clear = draw_scenes(records("clear"), 0.3, 5)
    both = draw_scenes([*records("fog"), *records("haze")], 0.3, 5)
    moved = {record.group for record in clear if record.split == "val"}
    assert {record.group for record in both if record.split == "val"} == moved


def test_fraction_out_of_range_names_its_key():
    with pytest.raises(DataError, match=r"^data\.val_fraction: 1, expected"):
        draw_scenes(records("day"), 1, 0)
