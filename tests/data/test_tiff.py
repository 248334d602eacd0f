from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from domainnorm.data.images import read_image
from domainnorm.errors import DataError

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
