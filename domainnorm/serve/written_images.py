"""Image files that a network has changed: read and written with all that they hold."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.TiffTags import TAGS_V2_GROUPS
from rich.progress import Progress

from domainnorm.data.augmentation.degradation import bicubic
from domainnorm.data.images import as_stored, in_8_bits, opened, read_all, read_image, upright
from domainnorm.errors import CheckpointError, DataError
from domainnorm.recipe import Recipe
from domainnorm.serve.image_list import below
from domainnorm.serve.image_sources import FileImages, find_source
from domainnorm.storage import folder_beside, make_folders
from domainnorm.terminal import create_console

SHEET = "sheet.png"
SHOWN = 6  # images in a sheet
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "YCbCr")
_EXIF, _GPS = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo
# What EXIF says of an image, but for its orientation, its size and how it is stored.
_KEPT = {
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model),
    *(ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist),
    *(ExifTags.Base.HostComputer, ExifTags.Base.Copyright),
}
# Within that; the offsets of the first and last are those of the file they were in.
_OF_FILE = (ExifTags.Base.MakerNote, ExifTags.Base.ExifInteroperabilityOffset)
_SIDES = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
# Of a GeoTIFF: steps of pixels and their place, or both as a matrix; the system of places.
_STEPS, _TIES, _MATRIX, _SYSTEM = 33550, 33922, 34264, 34735
_RASTER = 1025  # key of the system: 2 where places are those of the middle of pixels
_TEXT, _SHORT, _DOUBLE = 2, 3, 12  # types
_GEO = {  # type, and what the number of values is a multiple of
    **{_STEPS: (_DOUBLE, 3), _TIES: (_DOUBLE, 6), _MATRIX: (_DOUBLE, 16)},
    **{_SYSTEM: (_SHORT, 4), 34736: (_DOUBLE, 1), 34737: (_TEXT, 1)},
    **{42112: (_TEXT, 1), 42113: (_TEXT, 1)},  # notes of GDAL; pixels that say nothing
}

_HEADER = 8 + 25  # bytes of a PNG with its first chunk, after which others may come
_BESIDE = (b"eXIf", b"iCCP", b"pHYs")


@dataclass(frozen=True)
class WholeImage:
    """An upright image with its depth, its alpha channel, and what the file says beside.

    Args:
        values: As stored, uint8 or uint16: (h, w, 3), RGB, or (h, w, 1).
        white: The value that is white: 255, or what it is in 16 bits.
        alpha: (h, w) of the same type; None without.
        about: What Pillow takes beside pixels: ``exif``, ``icc_profile``, ``dpi``.
        places: Tags of a GeoTIFF with the numbers of their types, which only TIFF keeps.
    """

    values: NDArray[Any]
    white: int
    alpha: NDArray[Any] | None
    about: dict[str, Any]
    places: dict[int, tuple[int, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, white: int) -> WholeImage:
        """Read a file; ``white`` is for 16 bits.

        Raises:
            DataError: It cannot be read, or holds what would be lost.
        """
        with opened(file) as image:
            mode, frames = image.mode, getattr(image, "n_frames", 1)
            if frames > 1:
                raise DataError(
                    f"{file}: has {frames} frames, and images of one are written; take it apart"
                )
            if mode not in (*_GREY, *_COLOUR):
                raise DataError(
                    f"{file}: has channels {', '.join(image.getbands())}, and grey and colour "
                    "images are written; convert the file"
                )
            about, places, values = _about(image), _places(image), read_image(file, white)
            clear = "A" in image.getbands() or "transparency" in image.info
            alpha = upright(np.asarray(image.convert("RGBA"))[..., 3], image) if clear else None
            stored = as_stored(file)
            if stored is not None and stored.dtype == np.uint16:
                values = upright(stored.reshape(*stored.shape[:2], -1), image)
                alpha = values[..., 3] if values.shape[2] == 4 else None
                if clear and alpha is None:
                    raise DataError(
                        f"{file}: one of its colours of 16 bits means transparent; give it an "
                        "alpha channel instead"
                    )
                values = values[..., 2::-1] if values.shape[2] > 2 else values[..., :1]
        kept = values[..., :1] if mode in _GREY else values
        return cls(kept, white if values.dtype == np.uint16 else 255, alpha, about, places)

    @property
    def grey(self) -> bool:
        """Whether it has no colours."""
        return bool(self.values.shape[2] == 1)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """As `read_image` gives them to networks: (h, w, 3), 0 to 255."""
        seen = np.repeat(self.values, 3, 2) if self.grey else self.values
        return np.asarray(in_8_bits(np.ascontiguousarray(seen), self.white), np.uint8)

    def changed(self, change: NDArray[np.float32], scale: int = 1) -> WholeImage:
        """The image enlarged, bicubic, and a change added to it, (H, W, 3) or (H, W, 1) for grey.

        255 of the change is white. Grey stays grey by a grey change.
        """
        own, top = self.values, max(self.white, int(self.values.max()))
        if change.shape[2] == 1 and not self.grey:
            own = cv2.cvtColor(own, cv2.COLOR_RGB2GRAY)[..., None]
        made = _enlarged(own, scale).clip(0, top) + change * np.float32(self.white / 255)
        values = np.rint(made).clip(0, top).astype(own.dtype)
        if values.shape[2] == 1 and not self.grey:
            values = np.repeat(values, 3, 2)
        alpha, most = self.alpha, np.iinfo(own.dtype).max
        if alpha is not None and scale > 1:
            alpha = np.rint(_enlarged(alpha[..., None], scale)[..., 0]).clip(0, most)
            alpha = alpha.astype(own.dtype)
        about = _enlarged_about(self.about, values.shape[:2], scale)
        if self.grey and values.shape[2] == 3:
            about.pop("icc_profile", None)  # which is one of greys
        places = _enlarged_places(self.places, scale)
        return replace(self, values=values, alpha=alpha, about=about, places=places)

    def write(self, file: Path) -> None:
        """Write it as PNG, TIFF or BMP, by the suffix of the file, whose folder is made.

        Raises:
            DataError: BMP, and an alpha channel, which it would lose.
        """
        suffix = file.suffix.lower()
        if suffix == ".bmp" and self.alpha is not None:
            raise DataError(f"{file.name}: transparency, which BMP loses; convert it to PNG")
        make_folders(file.parent)
        if suffix == ".bmp":
            shown = self.values[..., 0] if self.grey else self.values
            dpi = {key: self.about[key] for key in ("dpi",) if key in self.about}
            Image.fromarray(shown).save(file, format="BMP", **dpi)
        else:
            file.write_bytes(self._png() if suffix == ".png" else self._tiff())

    def _channels(self) -> NDArray[Any]:
        """Values with alpha as the last channel, (h, w, 1 to 4)."""
        alpha = () if self.alpha is None else (self.alpha[..., None],)
        return np.ascontiguousarray(np.concatenate([self.values, *alpha], 2))

    def _png(self) -> bytes:
        """OpenCV writes pixels of any depth, and Pillow what is said beside."""
        made = self._channels()
        if made.shape[2] == 2:  # which OpenCV does not write
            made = made[..., [0, 0, 0, 1]]
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[made.shape[2]]
        data = cv2.imencode(".png", np.ascontiguousarray(made[..., order]))[1].tobytes()
        beside = io.BytesIO()
        Image.new("L" if self.grey else "RGB", (1, 1)).save(beside, format="PNG", **self.about)
        told = [one for one in _chunks(beside.getvalue()) if one[4:8] in _BESIDE]
        return data[:_HEADER] + b"".join(told) + data[_HEADER:]

    def _tiff(self) -> bytes:
        """One deflated strip; Pillow has no colours of 16 bits, OpenCV nothing beside pixels."""
        made = self._channels()
        packed = zlib.compress(made.astype(made.dtype.newbyteorder("<")).tobytes())
        height, width, channels = made.shape
        tags = ImageFileDirectory_v2(prefix=b"II")
        exif = Image.Exif()
        exif.load(self.about.get("exif", b""))
        for key in exif:
            tags[key] = exif.get_ifd(key) if key in TAGS_V2_GROUPS else exif[key]
        for key, (kind, value) in self.places.items():
            tags.tagtype[key] = kind
            tags[key] = value
        dpi = self.about.get("dpi")
        base = ExifTags.Base
        given = {
            base.ImageWidth: width,
            base.ImageLength: height,
            base.BitsPerSample: (8 * made.itemsize,) * channels,
            base.Compression: 8,  # deflate
            base.PhotometricInterpretation: 1 if self.grey else 2,
            base.StripOffsets: 0,  # from the end of the tags, as Pillow counts
            base.SamplesPerPixel: channels,
            base.RowsPerStrip: height,
            base.StripByteCounts: len(packed),
            base.PlanarConfiguration: 1,
            base.ExtraSamples: None if self.alpha is None else 2,  # colours not multiplied by it
            base.InterColorProfile: self.about.get("icc_profile"),
            base.XResolution: dpi and dpi[0],
            base.YResolution: dpi and dpi[1],
            base.ResolutionUnit: dpi and 2,  # inches
        }
        for tag, value in given.items():
            if value is not None:
                tags[tag] = value
        stream = io.BytesIO()
        tags.save(stream)
        return stream.getvalue() + packed


def _chunks(data: bytes) -> Iterator[bytes]:
    """Those of a PNG, each with its length and checksum."""
    start = 8
    while start < len(data):
        end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
        yield data[start:end]
        start = end


def _about(image: Image.Image) -> dict[str, Any]:
    """What a file says beside its pixels, as Pillow takes it to write."""
    own, exif = image.getexif(), Image.Exif()
    for tag in _KEPT & set(own):
        exif[tag] = own[tag]
    says = len(exif) > 0
    for group in (_EXIF, _GPS):
        inner = {tag: value for tag, value in own.get_ifd(group).items() if tag not in _OF_FILE}
        if inner:
            exif.get_ifd(group).update(inner)
            says = True
    found: dict[str, Any] = {"exif": exif.tobytes()} if says else {}
    if profile := image.info.get("icc_profile"):
        found["icc_profile"] = profile
    # Of these formats Pillow gives a resolution where the file states none.
    stated = image.format not in ("TIFF", "JPEG") or ExifTags.Base.XResolution in own
    if stated or image.info.get("jfif_unit"):
        dpi = tuple(map(float, image.info.get("dpi", ())))
        if dpi and all(0 < one < math.inf for one in dpi):
            found["dpi"] = dpi
    return found


def _places(image: Image.Image) -> dict[int, tuple[int, Any]]:
    """What a GeoTIFF says of places, all of it or nothing.

    Nothing of an image that is stored turned, since places are those of its pixels, and nothing
    where a tag is not of its type and length.
    """
    if not isinstance(image, TiffImageFile) or image.tag_v2.get(ExifTags.Base.Orientation, 1) != 1:
        return {}
    tags, found = image.tag_v2, {}
    for tag, (kind, number) in _GEO.items():
        if tag not in tags:
            continue
        value = tags[tag]
        if tags.tagtype[tag] != kind:
            return {}
        if kind == _TEXT:
            value = str(value).encode("latin-1", "replace")  # as Pillow has read it
        else:
            value = value if isinstance(value, tuple) else (value,)
            if len(value) % number or (tag in (_STEPS, _MATRIX) and len(value) != number):
                return {}
        found[tag] = kind, value
    return found


def _enlarged_places(places: dict[int, tuple[int, Any]], scale: int) -> dict[int, tuple[int, Any]]:
    """Places of an enlarged image: nearer steps between more pixels, from the same corner.

    Where places are those of the middle of pixels, the middle of the first one is another.
    """
    made = dict(places)
    keys = places.get(_SYSTEM, (0, ()))[1]
    middle = (_RASTER, 0, 1, 2) in zip(*[iter(keys)] * 4, strict=False)
    moved = (scale - 1) / 2 if middle else 0.0  # columns of the middle of the first pixel
    if _STEPS in places:
        x, y, z = places[_STEPS][1]
        made[_STEPS] = _DOUBLE, (x / scale, y / scale, z)
    if _TIES in places:
        ties = np.reshape(places[_TIES][1], (-1, 6)).astype(np.float64)
        ties[:, :2] = ties[:, :2] * scale + moved
        made[_TIES] = _DOUBLE, tuple(ties.ravel().tolist())
    if _MATRIX in places:
        matrix = np.reshape(places[_MATRIX][1], (4, 4)).astype(np.float64)
        matrix[:, :2] /= scale
        matrix[:, 3] -= moved * matrix[:, :2].sum(1)
        made[_MATRIX] = _DOUBLE, tuple(matrix.ravel().tolist())
    return made


def _enlarged_about(about: dict[str, Any], size: Sequence[int], scale: int) -> dict[str, Any]:
    """What is said of an enlarged image: as large in inches as before."""
    made = dict(about)
    if "dpi" in made:
        made["dpi"] = tuple(scale * one for one in made["dpi"])
    if "exif" in made:
        exif = Image.Exif()
        exif.load(made["exif"])
        inner = exif.get_ifd(_EXIF)
        for tag, side in zip(_SIDES, reversed(size), strict=True):
            if tag in inner:
                inner[tag] = side
        made["exif"] = exif.tobytes()
    return made


def _enlarged(values: NDArray[Any], scale: int) -> NDArray[np.float32]:
    """Values (h, w, C) in float32, enlarged as in training; not clipped."""
    wide = values.astype(np.float32)
    if scale == 1:
        return wide
    size = [scale * side for side in values.shape[:2]]
    return bicubic(torch.from_numpy(wide).movedim(2, 0), size).movedim(0, 2).numpy()


def find_files(
    recipe: Recipe, images: Path, place: Path, figures: Iterable[str], what: str
) -> FileImages:
    """The image files of which changed ones are to be written to a folder.

    Args:
        recipe: Of the run.
        images: See `list_images`.
        place: The folder.
        figures: Names of sheets that will lie in it.
        what: The command, for messages.

    Raises:
        DataError: No images, those of medical formats, or two that would be one file.
    """
    source = find_source(recipe, images, place)
    if not isinstance(source, FileImages):
        raise DataError(
            f"{images}: the run reads DICOM files or volumes, and {what} writes plain images; "
            "train on images for that"
        )
    _check_names(images, (name for name, _ in source.listed.files), figures)
    return source


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A folder to write to, which becomes ``place`` when all is written, and nothing before.

    Raises:
        CheckpointError: ``place`` is a file, or holds anything.
    """
    _check_free(place)
    with folder_beside(place) as made:
        yield made
        make_folders(place)
        for entry in made.iterdir():
            entry.replace(place / entry.name)


def write_images(
    source: FileImages, change: Callable[[WholeImage], WholeImage], made: Path
) -> dict[str, tuple[WholeImage, WholeImage]]:
    """Write every image as ``change`` makes it; the first few, before and after, by name.

    Raises:
        DataError: An image that cannot be read, or written without loss.
    """
    kept: dict[str, tuple[WholeImage, WholeImage]] = {}
    white, named = source.asked()["white"], source.listed.files
    console = create_console(error=True)

    def read(file: Path) -> WholeImage:
        return WholeImage.read(file, white)

    with Progress(console=console, disable=not console.is_terminal) as bar:
        progress = bar.add_task("images", total=len(named))
        images = read_all(read, [file for _, file in named])
        for (name, _), image in zip(named, images, strict=True):
            done = change(image)
            done.write(made / file_of(name))
            if len(kept) < SHOWN:
                kept[str(name)] = image, done
            bar.advance(progress)
    return kept


def file_of(name: Path) -> Path:
    """Where what was made of an image is written, below the folder of all."""
    own = below(name)
    return own if own.suffix.lower() in _LOSSLESS else own.with_suffix(".png")


def count_renamed(source: FileImages) -> int:
    """Files that are called otherwise than their originals, since these lose detail."""
    return sum(file_of(name).name != name.name for name, _ in source.listed.files)


def _check_names(place: Path, names: Iterable[Path], figures: Iterable[str]) -> None:
    """Raise a DataError for images that would be written over each other, or over a sheet."""
    taken = {Path(name): "the sheet that is drawn" for name in figures}
    for name in names:
        file = file_of(name)
        other = taken.get(Path(file.parts[0])) or taken.setdefault(file, str(name))
        if other != str(name):
            raise DataError(
                f"{place}: {name} would be written to {file}, as {other}; rename the image"
            )


def _check_free(place: Path) -> None:
    """Raise a CheckpointError for a file, or a folder that holds anything."""
    if place.exists() and not place.is_dir():
        raise CheckpointError(f"{place}: is a file, expected a folder; choose another --output")
    found: Iterator[Path] = place.iterdir() if place.is_dir() else iter(())
    if (first := next(found, None)) is not None:
        raise CheckpointError(
            f"{place}: holds files already, such as {first.name}; choose another --output, or "
            "delete it"
        )
