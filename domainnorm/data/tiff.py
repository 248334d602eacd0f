"""Damage in compressed TIFF files, which OpenCV shows as black and only prints a line about."""

from __future__ import annotations

import io
import zlib

from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0")  # little and big endian; the last has wide offsets
_COMPRESSION = 259
_STRIPS, _TILES = (273, 279), (324, 325)  # tags of their offsets and lengths
_DEFLATE, _LZW, _PACKBITS = (8, 32946), 5, 32773


def is_damaged_tiff(data: bytes) -> bool:
    """Whether a TIFF holds pixels that cannot be decompressed; never for files of other formats.

    Deflate has checksums, which find any damage. LZW and PackBits have none: data may be damaged
    and decompress to other pixels. Other compressions are not looked at.
    """
    if data[:4] not in _MAGIC:
        return False
    stream = io.BytesIO(data)
    tags = ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
    stream.seek(tags.next)
    tags.load(stream)
    compression = tags.get(_COMPRESSION)
    if compression in _DEFLATE:
        offsets, lengths = (tags.get(tag, ()) for tag in (_TILES if _TILES[0] in tags else _STRIPS))
        parts = zip(offsets, lengths, strict=False)  # a file may leave out the lengths
        return not all(_inflates(data[start : start + length]) for start, length in parts)
    return compression in (_LZW, _PACKBITS) and not _loads(stream)


def _inflates(part: bytes) -> bool:
    stream = zlib.decompressobj()
    try:
        stream.decompress(part)
    except zlib.error:
        return False
    return stream.eof


def _loads(stream: io.BytesIO) -> bool:
    stream.seek(0)
    try:
        image = TiffImageFile(stream)
    except SyntaxError:  # pixels of a kind that Pillow does not know, which OpenCV checks
        return True
    try:
        image.load()
    except OSError:
        return False
    return True
