"""Masks of users that hold colours of classes instead of numbers."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.datasets import FolderMasks
from domainnorm.errors import DataError

ROAD, CAR, NONE = (128, 64, 128), (0, 0, 142), (0, 0, 0)
NUMBERS = np.array([[0, 1, 255], [1, 1, 0]])
PIXELS = np.array([[ROAD, CAR, NONE], [CAR, CAR, ROAD]], np.uint8)
CLASSES = "road,128,64,128\ncar,0,0,142\n,0,0,0\n"


def dataset(root, pixels, classes=CLASSES, **options):
    for folder, values in (("images", np.full((2, 3, 3), 9, np.uint8)), ("masks", pixels)):
        for number in range(10):
            file = root / "day" / folder / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            channels = {2: slice(None), 3: (..., [2, 1, 0, 3][: values.shape[-1]])}[values.ndim]
            cv2.imwrite(str(file), values[channels])
    (root / "classes.txt").write_text(classes)
    return FolderMasks(root=str(root), **options)


def test_colours_of_the_list_become_classes(tmp_path):
    data = dataset(tmp_path, PIXELS)
    assert data.class_names == ["road", "car"]
    assert data.class_colours == [ROAD, CAR]
    assert data.mask(0).dtype == np.uint8
    assert_array_equal(data.mask(0), NUMBERS)


def test_transparency_does_not_count(tmp_path):
    alpha = np.full((2, 3, 1), 7, np.uint8)
    assert_array_equal(dataset(tmp_path, np.concatenate([PIXELS, alpha], 2)).mask(0), NUMBERS)


@pytest.mark.parametrize("classes", [CLASSES, "road\ncar\n"])
def test_numbers_stay_numbers_whether_there_are_colours_or_not(tmp_path, classes):
    assert_array_equal(dataset(tmp_path, NUMBERS.astype(np.uint8), classes).mask(0), NUMBERS)


def test_numbers_in_three_equal_channels_are_numbers(tmp_path):
    grey = np.repeat(NUMBERS[..., None], 3, 2).astype(np.uint8)
    assert_array_equal(dataset(tmp_path, grey, "road\ncar\n").mask(0), NUMBERS)


def test_black_and_white_are_colours_where_the_list_says_so(tmp_path):
    pixels = np.where(NUMBERS[..., None] == 1, 255, 0).repeat(3, 2).astype(np.uint8)
    data = dataset(tmp_path, pixels, "background,0,0,0\nvessel,255,255,255\n")
    assert_array_equal(data.mask(0), NUMBERS == 1)


def test_colour_that_is_not_listed_is_named_with_its_place_and_the_line_to_add(tmp_path):
    message = (
        r"masks/0\.png: 1 pixel of colours that classes\.txt does not list, such as 0,0,0 in "
        r"row 0, column 2; add a line 'name,0,0,0', or ',0,0,0' for pixels without a class"
    )
    with pytest.raises(DataError, match=message):
        dataset(tmp_path, PIXELS, CLASSES.removesuffix(",0,0,0\n")).mask(0)


@pytest.mark.parametrize(
    "classes", ["road,128,64,128\ncar\n", "road\ncar\n", "road,1,2,3\ncar,1,2,3\n"]
)
def test_colours_are_refused_where_a_class_has_none_of_its_own(tmp_path, classes):
    message = r"masks/0\.png: colours, but .*classes\.txt does not give every class a colour"
    with pytest.raises(DataError, match=message):
        dataset(tmp_path, PIXELS, classes).mask(0)


def test_colours_without_a_class_stand_at_the_end(tmp_path):
    with pytest.raises(DataError, match=r"classes\.txt, line 1: no name; lines are counted"):
        dataset(tmp_path, PIXELS, ",0,0,0\nroad,128,64,128\ncar,0,0,142\n")
