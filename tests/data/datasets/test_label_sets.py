import numpy as np
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.datasets.label_sets import (
    CAMVID11,
    CITYSCAPES19,
    CITYSCAPES_IDS,
    LABEL_SETS,
    label_set,
    mapping,
)
from domainnorm.errors import DataError


def mapped(source: str, target: str) -> dict[str, str]:
    table, names = mapping(source, target), [*label_set(target).names]
    return {
        name: names[table[number]]
        for number, name in enumerate(label_set(source).names)
        if table[number] != 255
    }


@pytest.mark.parametrize(
    ("name", "count"),
    [("cityscapes19", 19), ("cityscapes16", 16), ("cityscapes13", 13), ("camvid11", 11)],
)
def test_label_set_has_the_classes_of_its_name(name, count):
    assert len(label_set(name).names) == count == len(set(label_set(name).colours.values()))


@pytest.mark.parametrize("name", LABEL_SETS)
def test_mapping_to_itself_changes_nothing(name):
    count = len(label_set(name).names)
    expected = np.full(256, 255)
    expected[:count] = range(count)
    assert_array_equal(mapping(name, name), expected)


@pytest.mark.parametrize("source", LABEL_SETS)
@pytest.mark.parametrize("target", LABEL_SETS)
def test_void_stays_void(source, target):
    assert mapping(source, target)[255] == 255


def test_sixteen_classes_lack_terrain_truck_and_train():
    lacking = set(CITYSCAPES19.names) - set(mapped("cityscapes19", "cityscapes16"))
    assert lacking == {"terrain", "truck", "train"}


def test_thirteen_classes_also_lack_wall_fence_and_pole():
    lacking = set(mapped("cityscapes19", "cityscapes16")) - set(
        mapped("cityscapes19", "cityscapes13")
    )
    assert lacking == {"wall", "fence", "pole"}


def test_every_class_of_cityscapes_is_one_of_camvid():
    assert set(mapped("cityscapes19", "camvid11")) == set(CITYSCAPES19.names)


def test_every_class_of_camvid_is_found_in_cityscapes():
    assert set(mapped("cityscapes19", "camvid11").values()) == set(CAMVID11.names)


@pytest.mark.parametrize("target", ["cityscapes19", "cityscapes16", "cityscapes13"])
def test_mixed_classes_of_camvid_have_no_counterpart(target):
    assert {"bicyclist", "sign_symbol"}.isdisjoint(mapped("camvid11", target))


def test_there_and_back_is_the_same_class_or_void():
    there, back = mapping("camvid11", "cityscapes19"), mapping("cityscapes19", "camvid11")
    both = back[there[: len(CAMVID11.names)]]
    kept = both != 255
    assert_array_equal(both[kept], np.arange(len(CAMVID11.names))[kept])


# https://github.com/mcordts/cityscapesScripts, helpers/labels.py
@pytest.mark.parametrize(
    ("number", "name"), [(7, "road"), (11, "building"), (26, "car"), (33, "bicycle")]
)
def test_ids_of_cityscapes(number, name):
    assert CITYSCAPES19.names[CITYSCAPES_IDS[number]] == name


@pytest.mark.parametrize("number", [0, 1, 9, 14, 18, 29, 30, 34, 255])
def test_ids_that_are_not_evaluated_are_void(number):
    assert CITYSCAPES_IDS[number] == 255


def test_unknown_label_set_names_the_nearest():
    with pytest.raises(DataError, match=r"^data\.classes: unknown label set 'camvid'.*'camvid11'"):
        label_set("camvid")
