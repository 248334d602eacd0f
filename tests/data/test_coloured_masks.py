"""Masks of users that hold colours of classes instead of numbers."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

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


@pytest.mark.parametrize("channels", [1, 3])
def test_black_and_white_are_colours_where_the_list_says_so(tmp_path, channels):
    pixels = np.where(NUMBERS == 1, 255, 0).astype(np.uint8)
    pixels = pixels if channels == 1 else pixels[..., None].repeat(3, 2)
    data = dataset(tmp_path, pixels, "background,0,0,0\nvessel,255,255,255\n")
    assert_array_equal(data.mask(0), NUMBERS == 1)


def test_numbers_are_refused_where_all_colours_are_grey(tmp_path):
    data = dataset(tmp_path, NUMBERS.astype(np.uint8), "background,0,0,0\nvessel,255,255,255\n")
    with pytest.raises(DataError, match="such as 1,1,1 in row 0, column 1; add a line"):
        data.mask(0)


def with_palette(root, colours, classes=CLASSES):
    """A dataset with a mask of 0, 1 and 2 in these colours, where ``NUMBERS`` are 0, 1 and 255."""
    data = dataset(root, PIXELS, classes)
    mask = Image.fromarray(np.where(NUMBERS == 255, 2, NUMBERS).astype(np.uint8), "P")
    mask.putpalette([value for colour in colours for value in colour])
    mask.save(root / "day/masks/0.png")
    return data


def test_palettes_count_by_their_colours_if_all_are_listed(tmp_path):
    swapped = with_palette(tmp_path, [CAR, ROAD, NONE])
    assert_array_equal(swapped.mask(0), [[1, 0, 255], [0, 0, 1]])


def test_palettes_of_other_colours_count_by_their_numbers(tmp_path):
    three = CLASSES.replace("car,", "tree,9,9,9\ncar,")
    data = with_palette(tmp_path, [(1, 1, 1), (2, 2, 2), (3, 3, 3)], three)
    assert_array_equal(data.mask(0), np.where(NUMBERS == 255, 2, NUMBERS))


def test_palettes_that_contradict_the_list_are_refused(tmp_path):
    data = with_palette(tmp_path, [CAR, (1, 2, 3), (4, 5, 6)])
    with pytest.raises(DataError, match=r"0\.png: a palette .* number 0 has the colour 0,0,142 of"):
        data.mask(0)


@pytest.mark.parametrize("channels", [3, 4])
def test_numbers_in_channels_of_sixteen_bits_are_not_cut_to_zero(tmp_path, channels):
    wide = np.repeat(np.array([[0, 1, 255], [1, 1, 0]], np.uint16)[..., None], channels, 2)
    assert_array_equal(dataset(tmp_path, wide, "road\ncar\n").mask(0), NUMBERS)


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
    message = r"masks/0\.png: colours, expected one channel .*, or give each class in classes\.txt"
    with pytest.raises(DataError, match=message):
        dataset(tmp_path, PIXELS, classes).mask(0)


def test_colours_without_a_class_stand_at_the_end(tmp_path):
    with pytest.raises(DataError, match=r"classes\.txt, line 1: no name; lines are counted"):
        dataset(tmp_path, PIXELS, ",0,0,0\nroad,128,64,128\ncar,0,0,142\n")
