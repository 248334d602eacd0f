"""Masks go through augmentation and preprocessing as their images do."""

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import ExifTags, Image
from torch.testing import assert_close

from domainnorm.data import Preprocessing, build_pipeline
from domainnorm.data.datasets import FolderMasks
from domainnorm.data.masks import read_mask
from domainnorm.errors import DataError
from domainnorm.serve.written_images import WholeImage

MEAN, STD = (0.5,) * 3, (0.25,) * 3


def coded(height, width):
    """An image whose colour tells its class, and the mask of these classes."""
    classes = np.arange(height * width).reshape(height, width) // 7 % 5
    return np.repeat((50 * classes)[..., None], 3, 2).astype(np.uint8), classes.astype(np.uint8)


def classes_of(image):
    """The classes that the colours of a normalized image tell."""
    return torch.round((image[0] * 0.25 + 0.5) * 255 / 50).long()


MOVES = ["HorizontalFlip", "VerticalFlip", "RandomRotate90", "Transpose"]


@pytest.mark.parametrize("seed", range(6))
def test_flips_and_crops_move_image_and_mask_alike(seed):
    steps = [{"name": name, "p": 0.5} for name in MOVES]
    pipeline = build_pipeline(steps, Preprocessing(24, 24, MEAN, STD, crop=(10, 8)))
    views = pipeline.views(*coded(24, 24), seed)
    assert views.image.shape == (3, 10, 8)
    assert_close(classes_of(views.image), views.mask)


def test_crops_differ_by_seed_and_only_by_seed():
    pipeline = build_pipeline([], Preprocessing(24, 24, MEAN, STD, crop=(8, 8)))
    crops = [pipeline(coded(24, 24)[0], seed) for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(crops[0], crops[1])
    assert any(not torch.equal(crops[0], other) for other in crops[2:])


@pytest.mark.parametrize("seed", range(8))
def test_what_a_rotation_uncovers_is_void(seed):
    steps = [{"name": "Rotate", "limit": [30, 60], "p": 1.0}]
    image, mask = np.full((32, 32, 3), 200, np.uint8), np.full((32, 32), 3, np.uint8)
    views = build_pipeline(steps, Preprocessing(32, 32, MEAN, STD)).views(image, mask, seed)
    assert set(views.mask.unique().tolist()) == {-1, 3}


def test_void_is_minus_one():
    mask = np.full((8, 8), 255, np.uint8)
    views = build_pipeline([], Preprocessing(8, 8, MEAN, STD)).views(coded(8, 8)[0], mask, 0)
    assert views.mask.dtype == torch.int64
    assert (views.mask == -1).all()


@pytest.mark.parametrize("size", [(20, 40), (40, 20), (7, 9)])
def test_pad_keeps_the_whole_image_between_void(size):
    preprocessing = Preprocessing(16, 16, MEAN, STD, fit="pad")
    image, mask = np.full((*size, 3), 255, np.uint8), np.zeros(size, np.uint8)
    pixels, classes = preprocessing.pair(image, mask)
    assert ((classes == 0) == (pixels[0] > 1)).all()  # the padding has the colour of the mean
    share = min(size) / max(size)
    assert (classes == 0).float().mean().item() == pytest.approx(share, abs=0.05)


def test_stretch_fills_the_input():
    preprocessing = Preprocessing(16, 12, MEAN, STD, fit="stretch")
    pixels, classes = preprocessing.pair(*coded(20, 40))
    assert pixels.shape == (3, 16, 12)
    assert (classes >= 0).all()


def test_shrunk_mask_takes_the_nearest_pixel():
    mask = np.repeat(np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4), 3, 0), 3, 1)
    _, classes = Preprocessing(4, 4, MEAN, STD).pair(np.zeros((12, 12, 3), np.uint8), mask)
    assert classes.tolist() == np.arange(16).reshape(4, 4).tolist()


def test_crop_of_an_image_smaller_than_it_is_padded():
    preprocessing = Preprocessing(16, 16, MEAN, STD, fit="pad", crop=(12, 12))
    _, classes = preprocessing.pair(np.zeros((4, 16, 3), np.uint8), np.zeros((4, 16), np.uint8))
    assert classes.shape == (12, 12)
    assert (classes == 0).sum() == 4 * 12


def test_evaluation_sees_the_whole_image():
    preprocessing = Preprocessing(16, 16, MEAN, STD, crop=(8, 8))
    assert preprocessing.whole().pair(*coded(16, 16))[0].shape == (3, 16, 16)


def test_crop_larger_than_the_input_is_refused():
    with pytest.raises(DataError, match=r"data.crop_size: 20 × 8 pixels.*input of 16 × 16 holds"):
        Preprocessing(16, 16, MEAN, STD, crop=(20, 8))


def test_mask_of_another_size_is_refused():
    pipeline = build_pipeline([], Preprocessing(16, 16, MEAN, STD))
    with pytest.raises(DataError, match="a mask of 8 × 8 pixels for an image of 16 × 16"):
        pipeline.views(coded(16, 16)[0], coded(8, 8)[1], 0)


def test_strong_view_starts_from_the_weak_one():
    steps = {
        "weak": [{"name": "HorizontalFlip", "p": 0.5}],
        "strong": [{"name": "InvertImg", "p": 1}],
    }
    pipeline = build_pipeline(steps, Preprocessing(16, 16, MEAN, STD, crop=(8, 8)))
    for seed in range(6):
        views = pipeline.views(*coded(16, 16), seed)
        assert_close(views.strong, -views.image)


def test_strong_steps_that_move_pixels_are_refused():
    with pytest.raises(DataError, match=r"augment.strong\[0\]: Rotate moves pixels.*under weak"):
        build_pipeline({"weak": [], "strong": ["Rotate"]}, Preprocessing(8, 8, MEAN, STD))


def test_other_keys_than_weak_and_strong_are_refused():
    with pytest.raises(DataError, match=r"augment\.stong: unknown key, expected weak and strong"):
        build_pipeline({"stong": []}, Preprocessing(8, 8, MEAN, STD))


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
    with pytest.raises(
        DataError, match=r"0\.png: .* of its palette, and number 0 has the colour 0,0,142 of"
    ):
        data.mask(0)


@pytest.mark.parametrize("channels", [3, 4])
def test_numbers_in_channels_of_sixteen_bits_are_not_cut_to_zero(tmp_path, channels):
    wide = np.repeat(np.array([[0, 1, 255], [1, 1, 0]], np.uint16)[..., None], channels, 2)
    assert_array_equal(dataset(tmp_path, wide, "road\ncar\n").mask(0), NUMBERS)


def test_numbers_in_sixteen_bits_of_a_turned_tiff_are_not_cut_to_zero(tmp_path):
    file, turned = tmp_path / "a.tif", Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    stored = np.repeat(np.array([[0, 1, 2], [1, 1, 0]], np.uint16)[..., None], 3, 2)
    WholeImage(stored, 65535, None, {"exif": turned.tobytes()}).write(file)
    assert_array_equal(read_mask(file), np.rot90(stored[..., 0], -1))


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
    message = r"masks/0\.png: colours, expected one channel .*, or list the colour of each class"
    with pytest.raises(DataError, match=message):
        dataset(tmp_path, PIXELS, classes).mask(0)


def test_colours_without_a_class_stand_at_the_end(tmp_path):
    with pytest.raises(
        DataError, match=r"classes\.txt, line 1: no name; the line number is the class"
    ):
        dataset(tmp_path, PIXELS, ",0,0,0\nroad,128,64,128\ncar,0,0,142\n")
