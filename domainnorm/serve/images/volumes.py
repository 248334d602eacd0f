"""NIfTI volumes that are predicted slice by slice; their masks are volumes of the same grid."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import VOID, Record
from domainnorm.data.nifti_slices import NiftiSlices, open_volume
from domainnorm.data.volumes import import_medical
from domainnorm.errors import DataError
from domainnorm.serve.images.files import check_masks, mask_file
from domainnorm.serve.images.image_list import ImageList, list_files
from domainnorm.serve.images.source import MASKS, ImageSource

_SUFFIXES = (".nii.gz", ".nii")
_READING = ("axis", "spacing", "window", "cache_mb")  # options of the dataset


@dataclass(frozen=True)
class _Slice:
    """One slice, or a volume that cannot be read.

    Args:
        number: Of its volume in the list.
        position: Across the slices.
        shape: Of the volume in canonical orientation.
        problem: Why it cannot be read.
    """

    number: int
    position: int = 0
    shape: tuple[int, ...] = ()
    problem: str = ""


class VolumeImages(ImageSource):
    """Slices of NIfTI volumes, in the orientation and with the grey values of training.

    Their masks are put together again: ``masks/<volume>.nii.gz``, in the voxels, orientation and
    affine of the volume.

    Args:
        place: A folder, searched below as well; one volume; or a list or table of them. In a
            folder segmentations, by ``mask_suffix``, are left out.
        written: Where the predictions go.
        options: Of the run's dataset: ``axis``, ``spacing``, ``window``, ``mask_suffix``.

    Raises:
        DataError: No volumes, or a wrong table, see `list_files`.
    """

    def __init__(self, place: Path, written: Path, options: Mapping[str, Any]) -> None:
        self._volumes = _volumes(place, written, options.get("mask_suffix", "_segmentation"))
        self._reader = NiftiSlices(**{key: options[key] for key in _READING if key in options})
        self._reader.root = Path()
        self._slices = list(self._read_heads())
        self._reader.records = [
            Record(f"{self._file(one)}#{one.position}", "", -1, "", "test") for one in self._slices
        ]
        self._lock = threading.Lock()
        self._damaged: dict[int, str] = {}  # number of a volume -> why its values cannot be read
        self._open: tuple[_Slice, NDArray[np.uint8]] | None = None  # the mask that is being filled
        volumes = self._volumes
        super().__init__(
            ImageList(
                place,
                [(self._name(one), self._file(one)) for one in self._slices],
                [volumes.domains[one.number] for one in self._slices],
                {
                    name: [cells[one.number] for one in self._slices]
                    for name, cells in (volumes.columns or {}).items()
                }
                or None,
                volumes.given,
            ),
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
        _save(volume, self._file(one), made / self._mask_of(one))


def _save(volume: NDArray[np.uint8], source: Path, file: Path) -> None:
    """Write classes, which are in canonical orientation, on the grid of the volume ``source``."""
    nibabel = import_medical("nibabel")
    own, canonical = nibabel.load(source), open_volume(source)
    turned = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(canonical.affine), nibabel.io_orientation(own.affine)
    )
    header = own.header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"] = header["cal_max"] = 0  # a window of grey values
    file.parent.mkdir(parents=True, exist_ok=True)
    image = type(own)(nibabel.apply_orientation(volume, turned), own.affine, header)
    try:
        nibabel.save(image, file)
    except OSError as error:
        raise DataError(
            f"{file}: cannot be written ({error}); free some space, or choose another --output"
        ) from error


def _volumes(place: Path, written: Path, mask_suffix: str) -> ImageList:
    ending = mask_suffix.lower()

    def search(folder: Path) -> Iterator[Path]:
        for file in folder.rglob("*"):
            is_mask = _stem(file).lower().endswith(ending)
            if _is_volume(file) and not is_mask and file.name[0] != "." and file.is_file():
                yield file

    found = list_files(place, written, search, _is_volume)
    if not len(found):
        raise DataError(
            f"{place}: no volumes in it ({', '.join(_SUFFIXES)}), as the run was trained on"
        )
    return found


def _is_volume(file: Path) -> bool:
    return file.name.lower().endswith(_SUFFIXES)


def _mask_file(name: Path) -> Path:
    """Where the mask of a volume is written, below the folder of masks."""
    plain = mask_file(name)  # without its last suffix
    return plain.with_name(f"{_stem(name)}.nii.gz")


def _stem(file: Path) -> str:
    """Name without ``.nii.gz`` or ``.nii``."""
    ending = next((end for end in _SUFFIXES if file.name.lower().endswith(end)), "")
    return file.name[: len(file.name) - len(ending)]
