"""DICOM files: what their headers say, and their images as they are meant to be shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.refusals import refusing
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
_SUFFIXES = (".dcm", ".dicom", ".ima")
_READ = ("PatientID", "SOPInstanceUID", "NumberOfFrames", "Rows", *ATTRIBUTES.values())


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


def read_headers(root: Path) -> Iterator[Header]:
    """Headers of all DICOM images below a folder, in the order of their paths.

    Objects without pixels (reports, directories) are left out.

    Raises:
        DataError: A file with a suffix of DICOM is none.
    """
    for file in dicom_files(root):
        header = None
        with refusing():
            header = read_header(file)
        if header is not None:
            yield header


def dicom_files(root: Path) -> list[Path]:
    """Files below a folder that may be DICOM by their names: a suffix of it, or none."""
    return [file for file in sorted(root.rglob("*")) if file.is_file() and _may_be(file)]


def read_header(file: Path) -> Header | None:
    """Header of an image; None for objects without pixels, and for other files of such names.

    Raises:
        DataError: A file with a suffix of DICOM is none, or cannot be read.
    """
    pydicom = import_medical("pydicom")
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_READ))
    except (pydicom.errors.InvalidDicomError, OSError, EOFError) as error:
        if file.suffix.lower() in _SUFFIXES:
            raise DataError(f"{file}: not a readable DICOM file ({error})") from error
        return None
    if "Rows" not in header:
        return None
    tags = {tag: str(header.get(tag, "") or "").strip() for tag in _READ}
    return Header(file, tags, int(header.get("NumberOfFrames", 1) or 1))


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

    Stored values go through the header's modality transform (rescale slope and intercept, or its
    table). Then ``window`` applies, or else the header's window or table, or else the 0.5 to 99.5
    percentiles. MONOCHROME1, where low values are bright, is inverted. Colour stays.

    Args:
        file: Path of the file.
        frame: Position of the image in it.
        window: Centre and width in values after the modality transform, or None.
        spacing: Distance between pixels that is wanted, in mm; None keeps that of the file.

    Raises:
        DataError: The file cannot be decoded, or does not say the distance between its pixels; the
            message names it.
    """
    pydicom = import_medical("pydicom")
    try:
        header = pydicom.dcmread(file)
        stored = pydicom.pixels.pixel_array(header, index=frame)
    except Exception as error:  # pydicom's decoders raise whatever their plugins do
        raise DataError(
            f"{file}: cannot be decoded ({error}); compressed transfer syntaxes may need "
            "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        ) from error
    if header.get("SamplesPerPixel", 1) == 3:
        shown = np.asarray(stored >> max(0, int(header.BitsStored) - 8), dtype=np.uint8)
    else:
        shown = _shown(pydicom, header, stored, window)
        if header.PhotometricInterpretation == "MONOCHROME1":
            shown = 255 - shown
    if spacing is not None:
        shown = resample(shown, _spacing(header, file), spacing, classes=False)
    return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=-1)


def _spacing(header: Any, file: Path) -> tuple[float, float]:
    """Distance between rows and between columns, in mm."""
    shared = header.get("SharedFunctionalGroupsSequence")  # of enhanced multi-frame objects
    measures = shared[0].get("PixelMeasuresSequence") if shared else None
    for place in (header, *(measures or ())):
        for tag in _SPACINGS:
            given = place.get(tag)
            if given is not None and len(given) == 2 and min(map(float, given)) > 0:
                return float(given[0]), float(given[1])
    raise DataError(
        f"{file}: the header has none of {', '.join(_SPACINGS)}, which data.spacing needs; leave "
        "the key out, or the file"
    )


def _shown(
    pydicom: Any, header: Any, stored: NDArray[Any], window: list[float] | None
) -> NDArray[np.uint8]:
    values = pydicom.pixels.apply_modality_lut(stored, header)
    if window is not None:
        return to_grey(values, *window_range(window))
    if "VOILUTSequence" in header:
        shown = pydicom.pixels.apply_voi_lut(values, header)
        return to_grey(shown, float(shown.min()), float(shown.max()))
    if "WindowCenter" in header and "WindowWidth" in header:
        # Several windows may be offered; the first is the default one.
        given = [float(np.ravel(header[tag].value)[0]) for tag in ("WindowCenter", "WindowWidth")]
        if given[1] > 0:
            return to_grey(values, *window_range(given))
    return to_grey(values, *percentile_range(np.asarray(values)))


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
