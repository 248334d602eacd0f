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


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 2, (0.5,) * 2), ((0.5,), HALF)])
def test_statistics_of_other_channels_than_colours_or_grey_are_refused(mean, std):
    with pytest.raises(DataError, match="expected three numbers each"):
        Preprocessing(32, 32, mean, std)


def test_network_of_one_channel_gets_brightness():
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    done = Preprocessing(24, 20, (0.4,), (0.2,))(image)
    weights = torch.tensor([0.299, 0.587, 0.114])
    brightness = (torch.from_numpy(image).double() @ weights.double()).round()
    assert_close(done[0], ((brightness / 255 - 0.4) / 0.2).float(), atol=0.02, rtol=0)
    grey = np.repeat(image[..., :1], 3, axis=2)
    exact = torch.from_numpy(image[..., 0]) / 255
    assert_close(Preprocessing(24, 20, (0.4,), (0.2,))(grey)[0], (exact - 0.4) / 0.2)


def test_grey_images_are_padded_with_their_mean():
    wide = np.full((10, 20, 3), 255, np.uint8)
    done = Preprocessing(20, 20, (0.4,), (0.2,), fit="pad")(wide)
    assert done.shape == (1, 20, 20)
    assert_close(done[0, 0], torch.zeros(20), atol=1e-6, rtol=0)
    assert Preprocessing(20, 20, (0.4,), (0.2,), fit="pad").fitted(wide).shape == (20, 20, 3)


def coordinates(height, width):
    """An image whose values say where they are: (2, h, w) in pixels."""
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(grid).float()


@pytest.mark.parametrize("shape", [(24, 32), (48, 64), (100, 77), (13, 200), (7, 5)])
@pytest.mark.parametrize("fit", ["stretch", "pad", "cover"])
def test_restored_values_are_those_of_the_pixel_of_the_image(shape, fit):
    done = Preprocessing(24, 32, HALF, HALF, fit=fit)
    values, inside = done.restored(coordinates(24, 32), *shape)
    assert values.shape == (2, *shape)
    factors = {
        "stretch": (24 / shape[0], 32 / shape[1]),
        "pad": (min(24 / shape[0], 32 / shape[1]),) * 2,
        "cover": (max(24 / shape[0], 32 / shape[1]),) * 2,
    }[fit]
    for axis, (side, whole) in enumerate(zip(shape, (24, 32), strict=True)):
        # A pixel's place from the centre of the image is scaled; what is cut off has none.
        place = (torch.arange(side) + 0.5 - side / 2) * factors[axis] + whole / 2 - 0.5
        there = (place > 0) & (place < whole - 1)
        found = values[axis].movedim(axis, 0)[there]
        wanted = place[there][:, None].expand_as(found)
        assert_close(found, wanted, rtol=0, atol=1.0)  # half a pixel of rounding for each side
        assert inside.movedim(axis, 0)[there].any() or not there.any()
    assert bool(inside.all()) == (fit != "cover" or shape in ((24, 32), (48, 64)))


def test_stretched_values_are_interpolated_as_torch_does():
    values = torch.randn(3, 12, 20)
    found, inside = Preprocessing(12, 20, HALF, HALF, fit="stretch").restored(values, 30, 45)
    wanted = torch.nn.functional.interpolate(values[None], (30, 45), mode="bilinear")[0]
    assert_close(found, wanted)
    assert inside.all()


def test_padding_is_left_out_and_what_was_cut_off_is_told():
    values = torch.zeros(1, 10, 10)
    values[:, 3:7] = 1  # an image of 4 × 10 pixels between padding
    found, _ = Preprocessing(10, 10, HALF, HALF, fit="pad").restored(values, 40, 100)
    assert_close(found[:, 5:35], torch.ones(1, 30, 100))
    _, inside = Preprocessing(10, 10, HALF, HALF).restored(values, 20, 40)  # 10 × 20, the middle
    assert inside[:, 10:30].all()
    assert not inside[:, :8].any()
    assert not inside[:, 32:].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_places_are_not_rounded_with_narrow_values(dtype):
    values = torch.randn(2, 512, 1024).to(dtype)
    done = Preprocessing(512, 1024, HALF, HALF)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = done.restored(values, 512, 1024)
    assert_close(found, values.float())


def test_a_row_that_is_cut_off_is_noticed():
    done = Preprocessing(64, 66, HALF, HALF)
    assert not done.restored(torch.zeros(1, 1, 1), 96, 96)[1].all()
    assert done.restored(torch.zeros(1, 1, 1), 128, 132)[1].all()
