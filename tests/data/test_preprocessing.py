from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from domainnorm.data import Preprocessing
from domainnorm.errors import DataError

HALF = (0.5, 0.5, 0.5)
CONFIG = {
    "input_size": (3, 224, 192),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
}


def test_image_of_input_size_is_only_normalized():
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    done = Preprocessing(24, 20, CONFIG["mean"], CONFIG["std"])(image)
    scaled = torch.from_numpy(image).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(CONFIG[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert_close(done, (scaled - mean) / std)


@pytest.mark.parametrize("shape", [(7, 9), (300, 40), (33, 32), (1, 1), (1000, 999)])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "nearest", "area", "lanczos"])
def test_every_image_gets_the_input_size(shape, kernel):
    image = np.full((*shape, 3), 255, np.uint8)
    done = Preprocessing(32, 24, HALF, HALF, kernel)(image)
    assert_close(done, torch.ones(3, 32, 24))


def test_longer_side_is_cut_at_both_ends():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    assert_close(Preprocessing(10, 10, HALF, HALF)(image), torch.ones(3, 10, 10))


def test_border_of_a_square_image_is_kept():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:8] = 255
    done = Preprocessing(32, 32, HALF, HALF)(image)
    assert_close(done[:, :4], torch.ones(3, 4, 32))


def test_shrinking_does_not_alias():
    image = np.zeros((128, 128, 3), np.uint8)
    image[::2] = 254
    done = Preprocessing(32, 32, (0, 0, 0), (1, 1, 1))(image)
    assert_close(done, torch.full((3, 32, 32), 127 / 255))


def test_backbone_config_is_taken_over():
    assert Preprocessing.from_config(CONFIG) == Preprocessing(
        224, 192, CONFIG["mean"], CONFIG["std"], "bicubic"
    )


@pytest.mark.parametrize(("size", "expected"), [(96, (96, 96)), ([64, 80], (64, 80))])
def test_image_size_replaces_that_of_the_backbone(size, expected):
    done = Preprocessing.from_config(CONFIG, size)
    assert (done.height, done.width) == expected


def test_interpolation_we_do_not_have_becomes_bilinear():
    assert Preprocessing.from_config({**CONFIG, "interpolation": "random"}).interpolation == (
        "bilinear"
    )


@pytest.mark.parametrize("size", [0, -3, [32], [1, 2, 3], [0, 8], "32"])
def test_wrong_size_names_the_key(size):
    with pytest.raises(DataError, match=r"data\.image_size: "):
        Preprocessing.from_config(CONFIG, size)


def test_grey_statistics_are_refused():
    with pytest.raises(DataError, match="expected three numbers each"):
        Preprocessing(32, 32, (0.5,), (0.5,))
