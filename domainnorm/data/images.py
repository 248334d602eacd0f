"""Image files: where they are, their pixels as 8-bit RGB, and their size; damage is told."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from domainnorm.data.refusals import reading
from domainnorm.errors import DataError
from domainnorm.storage import damage_of

Item = TypeVar("Item")
Reading = TypeVar("Reading")
# Wraps readings, of which it is told the number.
Progress = Callable[[Iterable[Any], int], Iterable[Any]]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
WHITE = 65535  # the largest value of 16 bits
IMAGES, MASKS = "images", "masks"  # folders beside each other
INPUT, TARGET = "input", "target"  # those of pairs
DRAWN_BY = "domainnorm"  # the software that PNG files of our figures name in their header
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
_TIFF = (b"II*\0", b"MM\0*", b"II+\0")  # little and big endian; the last has wide offsets
_BITS, _COMPRESSION, _SAMPLES = 258, 259, 277
_STRIPS, _TILES = (273, 279), (324, 325)  # tags of their offsets and lengths
_DEFLATE, _LZW, _PACKBITS = (8, 32946), 5, 32773
_REPLACED = "replace the file, or remove it and its row in a table of images"
# Errors here name the file, which the lines that OpenCV prints do not.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def find_images(root: Path) -> list[Path]:
    """Image files anywhere below a folder, relative to it and sorted.

    Hidden files are none, nor are figures of this program. Links are followed, but for those that
    lead back to a folder above them; one that leads nowhere is for who reads it to name.
    """
    found = (file for file in files_below(root) if file.suffix.lower() in SUFFIXES)
    return sorted(file.relative_to(root) for file in found if not _is_figure(file))


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files anywhere below a folder but hidden ones; links that lead nowhere are among them."""
    place = folder.resolve()
    if place in above:
        return
    for entry in _entries(folder):
        if entry.name[0] == ".":
            continue
        if entry.is_dir():
            yield from files_below(entry, (*above, place))
        elif entry.is_file() or not entry.exists():
            yield entry


def _is_figure(file: Path) -> bool:
    """Whether a file is a figure of this program, such as a sheet of images, by its header."""
    if file.suffix.lower() != ".png":
        return False
    try:
        with file.open("rb") as stream:
            return f"tEXtSoftware\0{DRAWN_BY}".encode() in stream.read(256)
    except OSError:
        return False  # who reads it as an image says why it cannot be


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except PermissionError:  # such as lost+found at the top of a disk
        return []


def without_masks(files: Sequence[Path]) -> Sequence[Path]:
    """The files in folders ``images`` alone, where others lie in folders ``masks``."""
    inside = [file for file in files if IMAGES in file.parts]
    return inside if inside and any(MASKS in file.parts for file in files) else files


def check_names(files: Iterable[Path]) -> None:
    """Raise a DataError for files that no table or log could name."""
    for file in files:
        name = str(file)
        if "\r" in name:
            raise DataError(f"{name!r}: a carriage return, which tables cannot store; rename it")
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(file).decode(errors="backslashreplace")
            raise DataError(
                f"{shown}: the name is not UTF-8, as tables and logs need it; rename the file, for "
                "example with `convmv -f latin1 -t utf8 --notest`"
            ) from None


def read_image(file: Path, white: int = WHITE) -> NDArray[np.uint8]:
    """`decode_image` of a file.

    Raises:
        DataError: The file is missing, truncated, no image, or holds another number type.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; restore the file or remove its entry") from None
    return decode_image(data, str(file), white)


def decode_image(data: bytes, name: str, white: int = WHITE) -> NDArray[np.uint8]:
    """Decode to (H, W, 3) RGB, 0 to 255, whatever the number of channels and the depth.

    Grey and palette images get three channels, an alpha channel is dropped, the orientation an
    EXIF tag states is applied, and 16-bit values are scaled so that ``white``, and what is larger,
    becomes 255. Messages call the image ``name``.

    Raises:
        DataError: It is truncated, no image, or holds another number type.
    """
    with reading(name, "image", _REPLACED):
        why = _damage_of(data)
        image = None if why else _decoded(data)
    if image is None:
        why = why or "truncated, damaged or another format"
        raise DataError(f"{name}: not a readable image ({len(data)} bytes; {why}); {_REPLACED}")
    image = in_8_bits(image, white)
    if image.dtype != np.uint8:
        raise DataError(
            f"{name}: pixels are {image.dtype}, expected unsigned integers of 8 or 16 bits; "
            "convert the file"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def in_8_bits(image: NDArray[Any], white: int = WHITE) -> NDArray[Any]:
    """16 bits scaled so that ``white``, and what is larger, is 255; other types as they are."""
    return cv2.convertScaleAbs(image, alpha=255 / white) if image.dtype == np.uint16 else image


def as_stored(file: Path) -> NDArray[Any] | None:
    """Values of a file in their own type, (H, W) or (H, W, C), BGR; None where OpenCV reads none.

    Only a TIFF is turned as it states.
    """
    # Not imread, which gives up on a TIFF that is to be turned by 90°.
    return _imdecode(file.read_bytes(), cv2.IMREAD_UNCHANGED)


@contextmanager
def opened(file: Path, what: str = "image") -> Iterator[Image.Image]:
    """A whole file as Pillow reads it, pixels as they are stored; messages call it ``what``.

    Raises:
        DataError: The file is missing, truncated, damaged or no image.
    """
    with reading(file, what):
        data = file.read_bytes()
        if why := _damage_of(data):
            raise DataError(f"{file}: not a readable {what} ({why}); replace the file")
        with Image.open(io.BytesIO(data)) as image:
            yield image


def read_size(file: Path) -> tuple[int, int]:
    """Height and width of what `read_image` gives, from the header of the file alone.

    Raises:
        DataError: The file is missing or no image.
    """
    with reading(file, "image"), Image.open(file) as image:
        width, height = image.size
        return (width, height) if _orientation(image) > 4 else (height, width)


def orientation_of(file: Path) -> int:
    """The orientation that a file states, 1 to 8; 1 is as stored, and so is that of none.

    Raises:
        DataError: The file is missing or no image.
    """
    with reading(file, "image"), Image.open(file) as image:
        return _stated(image)


def upright(values: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Pixels (H, W, ...) as stored in an image, turned as it states, as `read_image` gives them."""
    orientation = _orientation(image)
    if orientation in (5, 7):
        values = values.swapaxes(0, 1)
    turns = {3: 2, 4: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0)
    values = np.rot90(values, turns)
    return np.ascontiguousarray(values[:, ::-1] if orientation in (2, 4) else values)


def _orientation(image: Image.Image) -> int:
    """How pixels are to be turned; those of TIFF are by whoever decodes them, size included."""
    return 1 if image.format == "TIFF" else _stated(image)


def _stated(image: Image.Image) -> int:
    """The orientation in EXIF alone: other decoders do not look for it in XMP, as Pillow does."""
    if image.format == "TIFF":
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    else:
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        found = exif.get(ExifTags.Base.Orientation, 1)
    return int(found) if found in range(1, 9) else 1


def read_all(
    read: Callable[[Item], Reading], items: Sequence[Item], progress: Progress | None = None
) -> Iterator[Reading]:
    """What ``read``, which is called in several threads, makes of each item, in their order."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        readings = threads.map(read, items)
        yield from progress(readings, len(items)) if progress else readings


def _damage_of(data: bytes) -> str:
    """What is wrong with a compressed image that would decode to other pixels; nothing if whole."""
    if _is_cut_jpeg(data) or _is_damaged_tiff(data):
        return "truncated or damaged"
    return damage_of(data)


def _decoded(data: bytes) -> NDArray[Any] | None:
    if not data:
        return None
    if data[:4] in _TIFF and _has_alpha(data):
        with Image.open(io.BytesIO(data)) as stored:
            if stored.mode == "RGBA":  # OpenCV multiplies its colours by alpha
                return np.asarray(stored)[..., 2::-1]
    image = _imdecode(data, _FLAGS)
    if image is None:
        # Of number types that OpenCV cannot turn into colours it can at least tell which they are.
        image = _imdecode(data, cv2.IMREAD_UNCHANGED)
        return None if image is None or image.dtype in (np.uint8, np.uint16) else image
    return image


def _imdecode(data: bytes, flags: int) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker; OpenCV 4 fills the missing part with grey, silently."""
    if not data.startswith(b"\xff\xd8"):
        return False
    position = 2
    # Segments are skipped by their length, because an embedded thumbnail has an end marker too.
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data.find(b"\xff\xd9", position) < 0


def _is_damaged_tiff(data: bytes) -> bool:
    """Whether a TIFF holds pixels that cannot be decompressed, which OpenCV shows as black.

    Deflate has checksums, which find any damage. LZW and PackBits have none: data may be damaged
    and decompress to other pixels. Other compressions are not looked at.
    """
    if data[:4] not in _TIFF:
        return False
    tags = _tags(data)
    compression = tags.get(_COMPRESSION)
    if compression in _DEFLATE:
        offsets, lengths = (tags.get(tag, ()) for tag in (_TILES if _TILES[0] in tags else _STRIPS))
        parts = zip(offsets, lengths, strict=False)  # a file may leave out the lengths
        return not all(_inflates(data[start : start + length]) for start, length in parts)
    return compression in (_LZW, _PACKBITS) and not _loads(io.BytesIO(data))


def _tags(data: bytes) -> ImageFileDirectory_v2:
    """Those of the first image of a TIFF."""
    stream = io.BytesIO(data)
    tags = ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
    stream.seek(tags.next)
    tags.load(stream)
    return tags


def _has_alpha(data: bytes) -> bool:
    """Whether a TIFF has four channels of 8 bits."""
    tags = _tags(data)
    bits = tags.get(_BITS, ())
    return tags.get(_SAMPLES) == 4 and {*(bits if isinstance(bits, tuple) else (bits,))} == {8}


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
