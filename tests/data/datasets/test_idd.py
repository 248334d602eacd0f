import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.datasets import IDD
from domainnorm.data.datasets.drawing import draw_scene, generator_of
from domainnorm.errors import DataError


@pytest.fixture
def root(tmp_path) -> Path:
    for split, drives in (("train", 5), ("val", 2)):
        for drive in range(drives):
            images = tmp_path / f"leftImg8bit/{split}/{drive}"
            images.mkdir(parents=True)
            suffix = "jpg" if drive % 2 else "png"  # the second part of IDD is in JPEG
            cv2.imwrite(str(images / f"000_leftImg8bit.{suffix}"), np.zeros((4, 6, 3), np.uint8))
            write(tmp_path / f"gtFine/{split}/{drive}/000_gtFine_polygons.json", [])
    return tmp_path


def write(file: Path, objects: list[dict[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"imgHeight": 4, "imgWidth": 6, "objects": objects}))


def thing(label: str, left: float, right: float, **keys: object) -> dict[str, object]:
    corners = [[left, 0.0], [right, 0.0], [right, 3.0], [left, 3.0]]
    return {"label": label, "polygon": corners, **keys}


def painted(root: Path, *objects: dict[str, object]) -> list[str]:
    """Names of the classes of the first row."""
    dataset = IDD(root=str(root))
    write(root / str(dataset.records[0].mask), list(objects))
    names = dict(enumerate(dataset.class_names)) | {255: "void"}
    return [names[value] for value in dataset.mask(0)[0]]


def test_later_polygons_cover_earlier_ones(root):
    row = painted(root, thing("sky", 0, 5), thing("car", 2, 3))
    assert row == ["sky", "sky", "car", "car", "sky", "sky"]


def test_what_no_polygon_covers_is_void(root):
    assert painted(root, thing("road", 0, 2)) == ["road"] * 3 + ["void"] * 3


def test_autorickshaw_has_no_counterpart_and_still_covers(root):
    row = painted(root, thing("road", 0, 5), thing("autorickshaw", 1, 4))
    assert row == ["road", "void", "void", "void", "void", "road"]


def test_earth_is_terrain_as_in_the_official_mapping(root):
    assert painted(root, thing("non-drivable fallback", 0, 5)) == ["terrain"] * 6


def test_deleted_polygons_are_not_painted(root):
    row = painted(root, thing("road", 0, 5), thing("car", 0, 5, deleted=1))
    assert row == ["road"] * 6


def test_a_group_of_things_is_such_a_thing(root):
    assert painted(root, thing("persongroup", 0, 5)) == ["person"] * 6


def test_unknown_label_is_refused(root):
    with pytest.raises(DataError, match=r"_polygons\.json: label 'tank' is none of IDD's"):
        painted(root, thing("tank", 0, 5))


def test_damaged_polygons_are_refused(root):
    dataset = IDD(root=str(root))
    (root / str(dataset.records[0].mask)).write_text("{")
    with pytest.raises(DataError, match=r"000_gtFine_polygons\.json: not a readable file"):
        dataset.mask(0)


def test_equal_drives_of_two_official_splits_are_two_groups(root):
    groups = {record.group for record in IDD(root=str(root)).records}
    assert {"train/0", "val/0"} <= groups


def test_polygons_of_the_sample_are_the_drawn_boxes(tmp_path):
    IDD.write_sample(tmp_path)
    dataset = IDD(root=str(tmp_path))
    index = next(i for i, r in enumerate(dataset.records) if "/train/0/" in r.file)
    generator = generator_of(0, str(dataset.records[index].mask))
    _, drawn = draw_scene(generator, 19, "idd", (64, 128))
    assert_array_equal(dataset.mask(index), drawn)
