from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from domainnorm.data.images import find_images, opened, read_image
from domainnorm.errors import DataError
from domainnorm.report.figure import create_figure, save_figure


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


DEFLATE, LZW, PACKBITS = 8, 5, 32773


@pytest.fixture
def store(tmp_path, image):
    """Writes a TIFF in one way, with some bytes in the middle of its pixels changed or not."""

    def write(dtype, channels, compression, damaged=0):
        pixels = image[..., 0] if channels == 1 else image
        pixels = pixels.astype(dtype) * (257 if dtype == np.uint16 else 1)
        file = tmp_path / "a.tif"
        cv2.imwrite(
            str(file),
            pixels if channels == 1 else pixels[..., ::-1],
            [cv2.IMWRITE_TIFF_COMPRESSION, compression],
        )
        data = bytearray(file.read_bytes())
        for place in range(len(data) // 2, len(data) // 2 + damaged):
            data[place] ^= 0x5A
        file.write_bytes(data)
        return file

    return write


@pytest.mark.parametrize("compression", [DEFLATE, LZW, PACKBITS])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sound_file_is_read(store, image, dtype, channels, compression):
    expected = image[..., :1].repeat(3, 2) if channels == 1 else image
    assert_array_equal(read_image(store(dtype, channels, compression)), expected)


@pytest.mark.parametrize("compression", [DEFLATE, LZW])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_that_cannot_be_decompressed_are_refused(store, dtype, channels, compression):
    with pytest.raises(DataError, match=r"a\.tif: not a readable image"):
        read_image(store(dtype, channels, compression, damaged=200))


def test_a_single_wrong_byte_in_deflated_pixels_is_noticed(store):
    with pytest.raises(DataError, match=r"a\.tif: not a readable image"):
        read_image(store(np.uint8, 3, DEFLATE, damaged=1))


def tiled(pixels):
    """A grey TIFF of 16 × 16 tiles, deflated, as microscopes write; (H, W) in whole tiles."""
    height, width = pixels.shape
    corners = [(y, x) for y in range(0, height, 16) for x in range(0, width, 16)]
    tiles = [zlib.compress(pixels[y : y + 16, x : x + 16].tobytes()) for y, x in corners]
    starts = [8 + sum(map(len, tiles[:number])) for number in range(len(tiles))]
    body, lists = b"".join(tiles), 8 + sum(map(len, tiles))
    for values in (starts, [len(tile) for tile in tiles]):
        body += struct.pack(f"<{len(tiles)}I", *values)
    sizes = {256: width, 257: height, 258: 8, 259: DEFLATE, 262: 1, 277: 1, 322: 16, 323: 16}
    tags = [(tag, 4, 1, value) for tag, value in sizes.items()]
    tags += [(324, 4, len(tiles), lists), (325, 4, len(tiles), lists + 4 * len(tiles))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + bytes(4)


def test_tiles_are_looked_at_as_strips_are(tmp_path, image):
    file, pixels = tmp_path / "a.tif", np.ascontiguousarray(image[:32, :48, 0])
    data = bytearray(tiled(pixels))
    file.write_bytes(data)
    assert_array_equal(read_image(file)[..., 0], pixels)
    data[len(data) // 2] ^= 0x5A
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tif: not a readable image"):
        read_image(file)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_lzw", "packbits"])
def test_sound_file_of_any_mode_is_read_as_without_compression(tmp_path, image, mode, compression):
    stored = Image.fromarray(image).convert(mode)
    stored.save(tmp_path / "a.tif", compression=compression)
    stored.save(tmp_path / "b.tif")
    assert_array_equal(read_image(tmp_path / "a.tif"), read_image(tmp_path / "b.tif"))


@pytest.fixture
def root(tmp_path):
    """Two images, and files that are none."""
    for name in ("root/a/1.png", "root/b.JPG", "root/.hidden/2.png", "root/a/.3.png", "root/4.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "root"


def found(root):
    return [str(file) for file in find_images(root)]


def test_images_are_found_in_all_folders_and_hidden_ones_are_none(root):
    assert found(root) == ["a/1.png", "b.JPG"]


def test_figures_of_the_program_are_no_images(root):
    save_figure(create_figure(2, 2)[0], root / "a" / "sheet.png")
    assert found(root) == ["a/1.png", "b.JPG"]


def test_linked_folders_are_searched(root, tmp_path):
    (tmp_path / "far/deep").mkdir(parents=True)
    (tmp_path / "far/deep/5.png").touch()
    (root / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert found(root) == ["a/1.png", "b.JPG", "link/deep/5.png"]


def test_a_root_that_is_a_link_is_searched(root, tmp_path):
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert found(tmp_path / "link") == ["a/1.png", "b.JPG"]


@pytest.mark.parametrize("target", [".", "..", "self"])
def test_links_in_a_circle_end(root, target):
    (root / "a/self").symlink_to(target, target_is_directory=True)
    assert found(root) == ["a/1.png", "b.JPG"]


def test_links_to_each_other_end(root, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/5.png").touch()
    (tmp_path / "far/back").symlink_to(root, target_is_directory=True)
    (root / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert found(root) == ["a/1.png", "b.JPG", "link/5.png"]


def test_names_of_a_relative_folder_are_relative_to_it(root, monkeypatch):
    monkeypatch.chdir(root)
    assert [str(file) for file in find_images(Path())] == ["a/1.png", "b.JPG"]


def test_text_under_the_name_of_an_image_is_called_so(tmp_path):
    (tmp_path / "b.png").write_text("hello")
    told = r"b\.png: not a readable image \(truncated, damaged or another format\); replace"
    with pytest.raises(DataError, match=told), opened(tmp_path / "b.png"):
        pass
