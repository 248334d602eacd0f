"""Masks go through augmentation and preprocessing as their images do."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from domainnorm.data import Preprocessing, build_pipeline
from domainnorm.errors import DataError

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
