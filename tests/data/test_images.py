from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from domainnorm.data.images import read_image
from domainnorm.errors import DataError


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".ppm"])
def test_lossless_formats_keep_rgb_order(tmp_path, image, suffix):
    file = tmp_path / f"a{suffix}"
    Image.fromarray(image).save(file)
    assert_array_equal(read_image(file), image)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats_are_read(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    Image.new("RGB", (16, 12), (200, 100, 50)).save(file)
    decoded = read_image(file).astype(int)
    assert np.abs(decoded - np.array([200, 100, 50])).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_mode_becomes_three_channels(tmp_path, mode):
    pixels = np.zeros((9, 7, 3), np.uint8)
    pixels[:4] = 255
    file = tmp_path / "a.png"
    Image.fromarray(pixels).convert(mode).save(file)
    assert_array_equal(read_image(file), pixels)


def test_grey_map_becomes_three_channels(tmp_path):
    file = tmp_path / "a.pgm"
    Image.fromarray(np.full((4, 5), 77, np.uint8)).save(file)
    assert_array_equal(read_image(file), np.full((4, 5, 3), 77))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_divided_by_257(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    cv2.imwrite(str(file), np.array([[0, 257 * 7, 257 * 200, 65535]], np.uint16))
    assert_array_equal(read_image(file)[0, :, 1], [0, 7, 200, 255])


def test_white_is_the_value_that_becomes_255_and_what_is_larger_does_too(tmp_path):
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), np.array([[0, 1024, 2048, 4095, 60000]], np.uint16))
    assert_array_equal(read_image(file, 4095)[0, :, 1], [0, 64, 128, 255, 255])


def test_white_does_not_change_eight_bits(tmp_path, image):
    file = tmp_path / "a.png"
    Image.fromarray(image).save(file)
    assert_array_equal(read_image(file, 4095), image)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_truncated_file_is_named(tmp_path, image, suffix, kept):
    file = tmp_path / f"cut{suffix}"
    Image.fromarray(image).save(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DataError, match=rf"cut\{suffix}: not a readable image .* replace the file"):
        read_image(file)


def test_text_is_no_image(tmp_path):
    file = tmp_path / "page.png"
    file.write_text("<html>not found</html>")
    with pytest.raises(DataError, match=r"page\.png: not a readable image \(22 bytes"):
        read_image(file)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["float32", "float64", "int16", "int32", "uint32"])
def test_other_number_types_are_refused_by_name(tmp_path, capfd, kind, channels):
    file = tmp_path / "a.tif"
    cv2.imwrite(str(file), np.ones((4, 4, channels), kind))
    message = rf"a\.tif: pixels are {kind}, expected unsigned integers of 8 or 16 bits"
    with pytest.raises(DataError, match=message):
        read_image(file)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file_of_another_number_type_is_named(tmp_path, capfd, kept):
    file = tmp_path / "a.tif"
    cv2.imwrite(str(file), np.random.default_rng(0).random((40, 40)).astype(np.float32))
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DataError, match=r"a\.tif: not a readable image"):
        read_image(file)
    assert capfd.readouterr().err == ""


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: No such file"):
        read_image(tmp_path / "gone.png")
