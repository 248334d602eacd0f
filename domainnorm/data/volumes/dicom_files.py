"""DICOM files: what their headers say, and their images as they are meant to be shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.images import files_below
from domainnorm.data.refusals import LeftOut, reading, refusing
from domainnorm.data.volumes.grey_values import (
    import_medical,
    percentile_range,
    resample,
    to_grey,
    window_range,
)
from domainnorm.errors import DataError

ScannerKey = Literal["model", "manufacturer", "institution"]
_TAGS = {
    "model": ("Manufacturer", "ManufacturerModelName"),
    "manufacturer": ("Manufacturer",),
    "institution": ("InstitutionName",),
}
# What is known of an image, and the element of the header that says it.
ATTRIBUTES = {
    "modality": "Modality",
    "series": "SeriesInstanceUID",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "institution": "InstitutionName",
    "field_strength": "MagneticFieldStrength",
    "kvp": "KVP",
}
# The last two are of projections: at the detector, and as a film was scanned.
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
_DECODERS = (
    "compressed transfer syntaxes may need pip install pylibjpeg pylibjpeg-libjpeg "
    "pylibjpeg-openjpeg; else replace the file"
)
_SUFFIXES = (".dcm", ".dicom", ".ima")
_TABLES = (".csv", ".tsv")
# Of a file without a preamble: groups 0002 and 0008, which come first, in both byte orders.
_FIRST_GROUPS = (b"\2\0", b"\0\2", b"\x08\0", b"\0\x08")
_READ = (
    *("PatientID", "SOPInstanceUID", "SOPClassUID", "ImageType", "NumberOfFrames", "Rows"),
    *ATTRIBUTES.values(),
)
_NO_PICTURES = {"LOCALIZER": "localizer", "SCOUT": "localizer", "SCREEN SAVE": "screen save"}


@dataclass(frozen=True)
class Header:
    """One file."""

    file: Path  # absolute
    tags: dict[str, str]  # the header's elements by keyword, empty for absent ones
    frames: int  # number of images in the file

    def scanner(self, key: ScannerKey) -> str:
        """Name of a domain: lower case, words joined by underscores, ``unknown`` without one.

        The manufacturer is left out where the model's name repeats it.
        """
        words: list[str] = []
        for tag in _TAGS[key]:
            words += [word for word in _words(self.tags[tag]) if word not in words]
        return "_".join(words) or "unknown"


def read_headers(root: Path, left_out: LeftOut | None = None) -> Iterator[Header]:
    """Headers of all DICOM images below a folder, in the order of their paths.

    Objects that are none (segmentations, doses, reports, directories), localizers, screen saves and
    files of other kinds are left out, and told to ``left_out``; tables are not told.

    Raises:
        DataError: A file with a suffix of DICOM is none, or its header ends early.
    """
    for file in sorted(files_below(root)):
        header: Header | str = ""
        if _may_be(file):
            with refusing():
                header = read_header(file) or "no DICOM file by its first bytes"
        elif file.suffix.lower() not in _TABLES:
            header = f"no DICOM file by its suffix, {file.suffix}"
        if isinstance(header, Header):
            yield header
        elif header and left_out is not None:
            left_out.add(header, file.relative_to(root).as_posix())


def dicom_files(root: Path) -> list[Path]:
    """Files below a folder that may be DICOM by their names: a suffix of it, or none.

    Links that lead nowhere are among them, for who reads them to name.
    """
    return [file for file in sorted(files_below(root)) if _may_be(file)]


def read_header(file: Path) -> Header | str | None:
    """Header of an image, or what else it is; None for other files of such names.

    What an image is, is decided by SOP class and ImageType.

    Raises:
        DataError: A file with a suffix of DICOM is none, or cannot be read.
    """
    pydicom = import_medical("pydicom")
    named = file.suffix.lower() in _SUFFIXES or _begins_as_dicom(file)
    options = {"stop_before_pixels": True, "specific_tags": list(_READ)}
    try:
        with reading(file, "DICOM file"):
            header = pydicom.dcmread(file, force=named, **options)  # some have no preamble
            if not header and named:
                raise ValueError("it has no element that is known")
            tags = {tag: _text(header.get(tag)) for tag in _READ}
            frames = int(tags["NumberOfFrames"] or 1)
    except DataError:
        if named:
            raise
        return None
    media = getattr(header.file_meta, "MediaStorageSOPClassUID", "")
    kind = pydicom.uid.UID(tags["SOPClassUID"] or str(media)).name
    if kind and not kind[0].isdigit() and "Image" not in kind:
        return str(kind).removesuffix(" Storage")
    words = tags["ImageType"].upper()
    for word, meaning in _NO_PICTURES.items():
        if word in words:
            return meaning
    if "Rows" not in header:
        if not named:
            return None
        raise DataError(f"{file}: not a readable DICOM file (its header has no Rows); replace it")
    return Header(file, tags, frames)


def _begins_as_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
            return start[128:] == b"DICM" or start[:2] in _FIRST_GROUPS
    except OSError:
        return False


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def frame_names(name: str, frames: int) -> list[str]:
    """What the images of a file are called: as the file, or ``name#0``, ``name#1`` of several."""
    return [f"{name}#{frame}" for frame in range(frames)] if frames > 1 else [name]


def file_and_frame(path: Path) -> tuple[Path, int]:
    """The file of an image that `frame_names` has named, and its frame."""
    name, _, frame = str(path).rpartition("#")
    if not name or not frame.isdigit() or path.is_file():
        return path, 0
    return Path(name), int(frame)


def _may_be(file: Path) -> bool:
    suffix = file.suffix.lower()
    # Scanners write names that are numbers or UIDs, in which a point is no suffix.
    return suffix in _SUFFIXES or suffix[1:].isdigit() or not suffix


def read_pixels(
    file: Path, frame: int, window: list[float] | None, spacing: float | None = None
) -> NDArray[np.uint8]:
    """One image as it is meant to be shown: (H, W, 3), 0 to 255.

    Stored values go through the modality transform (rescale slope and intercept, or a table). Then
    ``window`` applies, or else the header's table or window, or else the 0.5 to 99.5 percentiles.
    MONOCHROME1, where low values are bright, is inverted; padding is black, and no part of any
    percentile. Palettes are looked up. Of several frames each has what the header says of it, see
    `FrameHeader`.

    Args:
        file: Path of the file.
        frame: Position of the image in it.
        window: Centre and width in values after the modality transform, or None.
        spacing: Distance between pixels that is wanted, in mm; None keeps that of the file.

    Raises:
        DataError: The file cannot be decoded, shows its values in a way that is not known here, or
            does not say the distance between its pixels; the message names it.
    """
    pydicom = import_medical("pydicom")
    with reading(file, "DICOM file", _DECODERS):
        header = pydicom.dcmread(file, force=True)
        if "TransferSyntaxUID" not in header.file_meta:  # without a preamble
            implicit, little = header.original_encoding
            syntax = "ImplicitVRLittleEndian" if implicit else "ExplicitVRLittleEndian"
            syntax = syntax if little else "ExplicitVRBigEndian"
            header.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        stored = pydicom.pixels.pixel_array(header, index=frame)
        own = FrameHeader(header, frame)
        shown = _shown(pydicom, own, np.asarray(stored), window)
        if spacing is not None:
            shown = resample(shown, _spacing(own, file), spacing, classes=False)
    return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=-1)


class FrameHeader:
    """What a header says of one frame: its own groups come first, then shared ones, then the rest.

    Args:
        header: Of the file.
        frame: Position of the frame.

    Attributes:
        root: The header.

    Reference:
        DICOM PS3.3, C.7.6.16 (multi-frame functional groups).
    """

    def __init__(self, header: Any, frame: int) -> None:
        self.root = header
        of_frames = header.get("PerFrameFunctionalGroupsSequence")
        own = [of_frames[frame]] if of_frames and frame < len(of_frames) else []
        self._groups = [*own, *(header.get("SharedFunctionalGroupsSequence") or ())]

    def group(self, name: str) -> Any:
        """The innermost item of a functional group; None where there is none."""
        for place in self._groups:
            if items := place.get(name):
                return items[0]
        return None

    def places(self, group: str) -> list[Any]:
        """That item, where there is one, and the header."""
        found = self.group(group)
        return [self.root] if found is None else [found, self.root]


def _spacing(header: FrameHeader, file: Path) -> tuple[float, float]:
    """Distance between rows and between columns, in mm."""
    for place in header.places("PixelMeasuresSequence"):
        for tag in _SPACINGS:
            given = place.get(tag)
            if given is not None and np.size(given) == 2 and min(map(float, given)) > 0:
                return float(given[0]), float(given[1])
    raise DataError(
        f"{file}: the header has none of {', '.join(_SPACINGS)}, which data.spacing needs; leave "
        "the key out, or the file"
    )


def _shown(
    pydicom: Any, header: FrameHeader, stored: NDArray[Any], window: list[float] | None
) -> NDArray[np.uint8]:
    kind = str(header.root.get("PhotometricInterpretation", "")).strip()
    if kind in _COLOURS:  # decoded to RGB
        return _eight_bits(stored, int(header.root.BitsStored))
    if kind == "PALETTE COLOR":
        colours = pydicom.pixels.apply_color_lut(stored, header.root)
        # Entries of 8 bits may be stored in words of 16.
        return _eight_bits(colours[..., :3], 16 if colours.max() > 255 else 8)
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"PhotometricInterpretation '{kind}' is not known here")
    shape = str(header.root.get("PresentationLUTShape", "")).strip()
    if shape and shape != {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}[kind]:
        raise ValueError(f"PresentationLUTShape '{shape}' contradicts {kind}")
    padding = _padding(header.root, stored)
    grey = _grey(pydicom, header, stored, window, ~padding)
    grey = 255 - grey if kind == "MONOCHROME1" else grey
    return np.where(padding, np.uint8(0), grey)


def _eight_bits(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    return np.asarray(colours >> max(0, bits - 8), dtype=np.uint8)


def _padding(header: Any, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Which stored values fill up the frame and show nothing."""
    given = [header.get(tag) for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    found = [_like(int(np.ravel(one)[0]), stored.dtype) for one in given if one is not None]
    if given[0] is None:
        return np.zeros(stored.shape, dtype=bool)
    return np.asarray((stored >= min(found)) & (stored <= max(found)))


def _like(value: int, kind: np.dtype[Any]) -> int:
    """A number of a header as the pixels have it, whose sign it may not have been written with."""
    if kind.kind not in "iu" or np.iinfo(kind).min <= value <= np.iinfo(kind).max:
        return value
    return value - (1 << 8 * kind.itemsize) if value > 0 else value + (1 << 8 * kind.itemsize)


def _grey(
    pydicom: Any,
    header: FrameHeader,
    stored: NDArray[Any],
    window: list[float] | None,
    counts: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Stored values as grey, before any inversion; those that do not count are in no statistic."""
    transform = header.group("PixelValueTransformationSequence")
    values = pydicom.pixels.apply_modality_lut(stored, header.root)
    if transform is not None:
        slope, intercept = float(transform.RescaleSlope), float(transform.RescaleIntercept)
        values = stored * slope + intercept
    if window is not None:
        return to_grey(values, *window_range(window))
    tables = header.root.get("VOILUTSequence")
    if tables and tables[0].get("LUTDescriptor") and tables[0].get("LUTData"):
        _sign_first(tables[0], values)
        shown = pydicom.pixels.apply_voi_lut(values, header.root)
        return to_grey(shown, *_range_of_table(pydicom, header.root))
    for place in header.places("FrameVOILUTSequence"):
        found = [place.get(tag) for tag in ("WindowCenter", "WindowWidth")]
        if None not in found:
            # Several windows may be offered; the first is the default one.
            given = [float(np.ravel(one)[0]) for one in found]
            if given[1] > 0:
                return _windowed(values, given, str(place.get("VOILUTFunction", "LINEAR")))
    return to_grey(values, *percentile_range(np.asarray(values)[counts]))


def _windowed(values: NDArray[Any], window: list[float], function: str) -> NDArray[np.uint8]:
    """A window of the header, by the function that it names (PS3.3, C.11.2.1.2)."""
    if function.strip() in ("", "LINEAR", "LINEAR_EXACT"):  # they differ by half a value
        return to_grey(values, *window_range(window))
    if function.strip() == "SIGMOID":
        centre, width = window
        return to_grey(1 / (1 + np.exp(-4 * (values - centre) / width)), 0, 1)
    raise ValueError(f"VOILUTFunction '{function}' is not known here")


def _sign_first(table: Any, values: NDArray[Any]) -> None:
    """Without its sign the first value that a table is of reads as a large one."""
    number, first, bits = table.LUTDescriptor
    if int(first) >= 1 << 15 and np.asarray(values).min() < 0:
        table.LUTDescriptor = [number, int(first) - (1 << 16), bits]


def _range_of_table(pydicom: Any, header: Any) -> tuple[float, float]:
    """Values that the first table of grey values gives at its ends, the smaller one first."""
    number, first, _ = header.VOILUTSequence[0].LUTDescriptor
    ends = np.array([int(first), int(first) + (int(number) or 65536) - 1])
    found = pydicom.pixels.apply_voi_lut(ends, header)
    return float(found.min()), float(found.max())


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
