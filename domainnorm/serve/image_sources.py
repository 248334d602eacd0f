"""Sources of the images that a finished run is shown, each read as its training data was."""

from __future__ import annotations

import abc
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import Record, white_of
from domainnorm.data.images import SUFFIXES, read_all, read_image
from domainnorm.data.masks import VOID
from domainnorm.data.volumes.dicom_files import (
    ATTRIBUTES,
    Header,
    dicom_files,
    frame_names,
    read_header,
    read_pixels,
)
from domainnorm.data.volumes.nifti_slices import (
    VOLUMES,
    NiftiSlices,
    is_volume,
    open_volume,
    stem_of,
    write_classes,
)
from domainnorm.errors import ConditionError, DataError
from domainnorm.recipe import Recipe
from domainnorm.recipe.schema import parts_of
from domainnorm.registry import DATASETS
from domainnorm.serve.image_list import ImageList, check_masks, list_images, mask_file
from domainnorm.storage import whole_file

MASKS = "masks"
_SHOWN = ("axis", "spacing", "window")  # what pixels of DICOM files and volumes depend on


def find_source(
    recipe: Recipe,
    place: Path,
    written: Path,
    *,
    white: int | None = None,
    known: Sequence[str] = (),
    attributes: Sequence[str] = (),
) -> ImageSource:
    """The images of ``place``, see `list_images`, as the run of a recipe reads them.

    Args:
        recipe: Of the run.
        place: Folder, list, table or file.
        written: Where the predictions go, of which none is an image.
        white: Value of 16-bit files that is shown as white; as in training when None.
        known: Domains that headers of DICOM files may tell: scanners of this name. Cells of a table
            come first.
        attributes: What the model's encoder reads of headers, where a table has no such column.

    Raises:
        ConditionError: ``white``, and the run reads other files.
        DataError: No images; or parts of the run's data that show their files differently.
    """
    parts = parts_of(recipe.dataset)
    kinds = {DATASETS.load(part.name).reads for part in parts}
    ways = [{key: part.options.get(key) for key in _SHOWN} for part in parts]
    if kinds == {"images"}:
        shown_white = white or white_of(recipe.dataset.options)
        if shown_white is None:
            raise DataError(
                "data.white: the parts of the run's data have different values; give the one for "
                "these images with --white"
            )
        return FileImages(place, written, shown_white)
    if len(kinds) > 1 or any(way != ways[0] for way in ways):
        names = ", ".join(part.name for part in parts)
        raise DataError(
            f"data.parts: the run was trained on files that are read in different ways ({names}), "
            "so it is unknown how to read these images; convert them, and train on one kind"
        )
    if white is not None:
        raise ConditionError(
            f"white: it is for 16-bit image files, but the run's dataset '{parts[0].name}' scales "
            "values by data.window; leave it out"
        )
    if kinds == {"volumes"}:
        return VolumeImages(place, written, parts[0].options)
    return DicomImages(place, written, parts[0].options, known, attributes)


class ImageSource(abc.ABC):
    """Images that are predicted, read as the training images of the run.

    Args:
        listed: Which they are, and what is told of them.
        problems: Number of an image -> why it cannot be read, as far as that is known already.
    """

    def __init__(self, listed: ImageList, problems: Mapping[int, str] | None = None) -> None:
        self.listed, self.problems = listed, problems or {}

    @abc.abstractmethod
    def pixels(self, number: int) -> NDArray[np.uint8]:
        """Pixels of one image: (h, w, 3), 0 to 255; called in several threads.

        Raises:
            DataError: It cannot be read or decoded; the message names it.
        """

    def read(self, number: int) -> NDArray[np.uint8]:
        """`pixels`; of an image with a known problem that one is raised."""
        if number in self.problems:
            raise DataError(self.problems[number])
        return self.pixels(number)

    def asked(self) -> Mapping[str, Any]:
        """Options that pixels depend on."""
        return {}

    def check_masks(self) -> None:
        """Refuse images whose masks would be one file, see `image_list.check_masks`."""
        check_masks(self.listed.place, (name for name, _ in self.listed.files))

    def write_mask(self, made: Path, number: int, mask: NDArray[np.uint8]) -> str:
        """Write the mask of one image, classes (h, w) at the size of its pixels.

        The images come in their order. Returns the file, below ``made``, the folder of all.
        """
        file = Path(MASKS) / mask_file(self.listed.files[number][0])
        write_mask(mask, made / file)
        return str(file)

    def finish(self, made: Path) -> None:  # noqa: B027 - most have nothing left
        """After the last image: write what is left; nothing unless overridden."""


class FileImages(ImageSource):
    """PNG, JPEG and other image files, in which ``white`` is what 16-bit ones show as white.

    Raises:
        DataError: No images, or a wrong list, see `list_images`.
    """

    def __init__(self, place: Path, written: Path, white: int) -> None:
        listed = list_images(place, written)
        if not len(listed):
            raise DataError(f"{place}: no images in it (known: {', '.join(sorted(SUFFIXES))})")
        super().__init__(listed)
        self._white = white

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """See `ImageSource`."""
        return read_image(self.listed.files[number][1], self._white)

    def asked(self) -> Mapping[str, Any]:
        """See `ImageSource`."""
        return {"white": self._white}


def write_mask(mask: NDArray[np.uint8], file: Path) -> None:
    """Write classes (h, w) as a PNG in one step; folders above it are made.

    Raises:
        DataError: It cannot be written.
    """
    with whole_file(file) as partial:
        if not cv2.imwrite(str(partial), mask):
            raise DataError(
                f"{file}: cannot be written; free some space, or choose another --output"
            )


class _Frame(NamedTuple):
    """One frame, or a file that is listed and has none."""

    number: int  # of its file in the list
    name: Path
    position: int  # in the file
    header: Header | str  # that of the file, or why it has none


class DicomImages(ImageSource):
    """Images of DICOM files, one for each frame, windowed as in training; see `find_source`.

    ``options`` are those of the run's dataset: ``window``, ``spacing``, ``domain_by``.

    Raises:
        DataError: No DICOM images, or a wrong table, see `list_images`.
    """

    def __init__(
        self,
        place: Path,
        written: Path,
        options: Mapping[str, Any],
        known: Sequence[str] = (),
        attributes: Sequence[str] = (),
    ) -> None:
        self._shown = options.get("window"), options.get("spacing")
        files = list_images(
            place, written, dicom_files, lambda file: isinstance(_header(file), Header)
        )
        self._frames = frames = list(_frames(files))
        if not frames:
            raise DataError(f"{place}: no DICOM images in it, as the run was trained on")
        listed = files.parts([(one.number, one.name) for one in frames])
        headers = [one.header if isinstance(one.header, Header) else None for one in frames]
        key = options.get("domain_by", "model")
        scanners = [header.scanner(key) if header else "" for header in headers]
        columns: dict[str, Sequence[str]] = {
            name: [header.tags[ATTRIBUTES[name]] if header else "" for header in headers]
            for name in attributes
            if name in ATTRIBUTES
        }
        columns |= listed.columns or {}
        domains = [
            domain or (scanner if scanner in known else "")
            for domain, scanner in zip(listed.domains, scanners, strict=True)
        ]
        super().__init__(
            replace(listed, domains=domains, columns=columns or None),
            {n: one.header for n, one in enumerate(frames) if isinstance(one.header, str)},
        )

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """See `ImageSource`."""
        file = self.listed.files[number][1]
        return read_pixels(file, self._frames[number].position, *self._shown)


def _frames(listed: ImageList) -> Iterator[_Frame]:
    headers = read_all(_header, [file for _, file in listed.files])
    for number, ((name, file), header) in enumerate(zip(listed.files, headers, strict=True)):
        if isinstance(header, Header):
            for position, shown in enumerate(frame_names(str(name), header.frames)):
                yield _Frame(number, Path(shown), position, header)
        elif header or not listed.place.is_dir():  # in a folder other files are passed over
            yield _Frame(number, name, 0, header or f"{file}: missing, or no image of DICOM")


def _header(file: Path) -> Header | str | None:
    """The header, why it cannot be read, or None for no image of DICOM."""
    try:
        found = read_header(file)
        return f"{file}: no image to predict ({found})" if isinstance(found, str) else found
    except DataError as error:
        return str(error)


class _Slice(NamedTuple):
    """One slice, or a volume that cannot be read."""

    number: int  # of its volume in the list
    position: int = 0  # across the slices
    shape: tuple[int, ...] = ()  # of the volume in canonical orientation
    problem: str = ""  # why it cannot be read


class VolumeImages(ImageSource):
    """Slices of NIfTI volumes, in the orientation and with the grey values of training.

    Their masks are put together again: ``masks/<volume>.nii.gz``, in the voxels, orientation and
    affine of the volume. In a folder segmentations, by ``mask_suffix``, are left out.

    Raises:
        DataError: No volumes, or a wrong table, see `list_images`.
    """

    def __init__(self, place: Path, written: Path, options: Mapping[str, Any]) -> None:
        self._volumes = _volumes(place, written, options.get("mask_suffix", "_segmentation"))
        reading = (*_SHOWN, "cache_mb")
        self._reader = NiftiSlices(**{key: options[key] for key in reading if key in options})
        self._reader.root = Path()
        self._slices = list(self._read_heads())
        self._reader.records = [
            Record(f"{self._file(one)}#{one.position}", "", -1, "", "test") for one in self._slices
        ]
        self._lock = threading.Lock()
        self._damaged: dict[int, str] = {}  # number of a volume -> why its values cannot be read
        self._open: tuple[_Slice, NDArray[np.uint8]] | None = None  # the mask that is being filled
        super().__init__(
            self._volumes.parts([(one.number, self._name(one)) for one in self._slices]),
            {number: one.problem for number, one in enumerate(self._slices) if one.problem},
        )

    def _read_heads(self) -> Iterator[_Slice]:
        for number, (_, file) in enumerate(self._volumes.files):
            try:
                volume = open_volume(file)
            except DataError as error:
                yield _Slice(number, problem=str(error))
                continue
            zooms = tuple(float(zoom) for zoom in volume.header.get_zooms())
            self._reader.zooms[str(file)] = zooms
            for position in range(volume.shape[self._reader.axis]):
                yield _Slice(number, position, volume.shape)

    def _file(self, one: _Slice) -> Path:
        return self._volumes.files[one.number][1]

    def _name(self, one: _Slice) -> Path:
        name = self._volumes.files[one.number][0]
        return name if one.problem else Path(f"{name}#{one.position}")

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """See `ImageSource`."""
        volume = self._slices[number].number
        with self._lock:  # threads would load one volume several times
            if volume in self._damaged:
                raise DataError(self._damaged[volume])
            try:
                return self._reader.image(number)
            except DataError as error:
                self._damaged[volume] = str(error)
                raise

    def check_masks(self) -> None:
        """See `ImageSource`."""
        check_masks(self.listed.place, (name for name, _ in self._volumes.files), _mask_file)

    def write_mask(self, made: Path, number: int, mask: NDArray[np.uint8]) -> str:
        """See `ImageSource`; a volume is written after its last slice."""
        one = self._slices[number]
        if self._open is None or self._open[0].number != one.number:
            self.finish(made)
            self._open = one, np.full(one.shape, VOID, np.uint8)
        axis, volume = self._reader.axis, self._open[1]
        columns, rows = (length for side, length in enumerate(one.shape) if side != axis)
        plane = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_NEAREST_EXACT)
        place: list[Any] = [slice(None)] * 3
        place[axis] = one.position
        volume[tuple(place)] = np.rot90(plane, -1)
        return str(self._mask_of(one))

    def _mask_of(self, one: _Slice) -> Path:
        return Path(MASKS) / _mask_file(self._volumes.files[one.number][0])

    def finish(self, made: Path) -> None:
        """See `ImageSource`."""
        if self._open is None:
            return
        one, volume = self._open
        self._open = None
        write_classes(volume, self._file(one), made / self._mask_of(one))


def _volumes(place: Path, written: Path, mask_suffix: str) -> ImageList:
    ending = mask_suffix.lower()

    def search(folder: Path) -> Iterator[Path]:
        for file in folder.rglob("*"):
            is_mask = stem_of(file).lower().endswith(ending)
            if is_volume(file) and not is_mask and file.name[0] != "." and file.is_file():
                yield file

    found = list_images(place, written, search, is_volume)
    if not len(found):
        raise DataError(
            f"{place}: no volumes in it ({', '.join(VOLUMES)}), as the run was trained on"
        )
    return found


def _mask_file(name: Path) -> Path:
    """Where the mask of a volume is written, below the folder of masks."""
    plain = mask_file(name)  # without its last suffix
    return plain.with_name(f"{stem_of(name)}.nii.gz")
