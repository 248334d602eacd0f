"""Slices of NIfTI volumes: orientation, grey values, spacing, memory, and masks that go back."""

from __future__ import annotations

import gzip
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import FileDataset
from domainnorm.data.masks import VOID
from domainnorm.data.refusals import reading, refuse
from domainnorm.data.volumes.grey_values import (
    check_spacing,
    check_window,
    import_medical,
    percentile_range,
    resample,
    to_grey,
    window_range,
)
from domainnorm.errors import DataError
from domainnorm.storage import whole_file

_WHOLE = 1e-3  # what a scale factor of the header may leave of a class number
_ROUNDING = 0.1  # of a voxel, at the corners; headers hold rotations in single precision
VOLUMES = (".nii.gz", ".nii")
_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


class NiftiSlices(FileDataset):
    """Slices as images; a record's file and mask are paths below the root, ``#`` and a position.

    Args:
        axis: Direction across the slices: ``axial``, ``coronal`` or ``sagittal``.
        spacing: Distance between pixels after resampling, in mm; null does not resample.
        window: Centre and width of the displayed grey values; null takes the 0.5 to 99.5
            percentiles of the volume.
        cache_mb: Megabytes of scaled volumes that each process keeps in memory.

    Raises:
        DataError: The package nibabel is missing, or a key is out of range.
    """

    reads = "volumes"
    merged = False  # whether all values of a segmentation above 0 are one class

    def __init__(
        self,
        *,
        axis: Literal["sagittal", "coronal", "axial"] = "axial",
        spacing: float | None = None,
        window: list[float] | None = None,
        cache_mb: int = 512,
    ) -> None:
        import_medical("nibabel")
        check_window("data.window", window)
        check_spacing("data.spacing", spacing)
        self.axis = _AXES[axis]
        self._spacing, self._window = spacing, window
        self._cache = VolumeCache(cache_mb)
        self.zooms: dict[str, tuple[float, ...]] = {}

    def image(self, index: int) -> NDArray[np.uint8]:
        """See `DomainDataset`; three equal channels."""
        plane = self._plane(self.records[index].file, classes=False)
        return np.repeat(plane[..., None], 3, axis=-1)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """See `DomainDataset`; a value without a name is refused, too."""
        record = self.records[index]
        if record.mask is None:
            raise DataError(f"{record.file}: no mask is known for this image")
        return self._plane(record.mask, classes=True)

    def _plane(self, name: str, *, classes: bool) -> NDArray[np.uint8]:
        file, _, position = name.rpartition("#")
        load = self._load_classes if classes else self._load_grey
        volume = self._cache.get(file, lambda: load(self.root / file))
        # Columns run from left to right, rows from front to back or from head to feet.
        plane = np.ascontiguousarray(np.rot90(np.take(volume, int(position), self.axis)))
        if self._spacing is None:
            return plane
        columns, rows = (zoom for axis, zoom in enumerate(self.zooms[file]) if axis != self.axis)
        return resample(plane, (rows, columns), self._spacing, classes=classes)

    def _load_grey(self, file: Path) -> NDArray[np.uint8]:
        values = load_values(file)
        bounds = window_range(self._window) if self._window else percentile_range(values)
        return to_grey(values, *bounds)

    def _load_classes(self, file: Path) -> NDArray[np.uint8]:
        values = load_values(file)
        if not bool((np.abs(values - np.round(values)) <= _WHOLE).all()):  # NaN is none, either
            raise DataError(
                f"{file}: values that are not whole numbers, expected class numbers; write them as "
                "integers"
            )
        values = np.round(values)
        if self.merged:
            return (values > 0).astype(np.uint8)
        wrong = np.setdiff1d(np.unique(values), [*range(len(self.class_names)), VOID])
        if wrong.size:
            raise DataError(
                f"{file}: values {', '.join(f'{value:g}' for value in wrong[:5])}, expected 0 to "
                f"{len(self.class_names) - 1} as named by data.classes"
            )
        return values.astype(np.uint8)


def is_volume(file: Path) -> bool:
    """Whether a file is a NIfTI volume by its suffix."""
    return file.name.lower().endswith(VOLUMES)


def stem_of(file: Path) -> str:
    """Name of a file without ``.nii.gz`` or ``.nii``."""
    ending = next((end for end in VOLUMES if file.name.lower().endswith(end)), "")
    return file.name[: len(file.name) - len(ending)]


def open_volume(file: Path) -> Any:
    """The volume in canonical orientation; its header is read, its values are not.

    A fourth axis of length one, as some programs write, is left out.

    Raises:
        DataError: It cannot be read, or has more axes.
    """
    with reading(file, "NIfTI file"):
        return _upright(import_medical("nibabel").load(file), file)


def _upright(volume: Any, file: Path) -> Any:
    nibabel = import_medical("nibabel")
    volume = nibabel.as_closest_canonical(nibabel.squeeze_image(volume))
    if len(volume.shape) != 3:
        raise DataError(f"{file}: shape {volume.shape}, expected a volume of three dimensions")
    if volume.get_data_dtype().kind not in "iufb":
        kind = volume.get_data_dtype()
        raise DataError(f"{file}: voxels are {kind}, expected a number each; convert the file")
    return volume


def check_affines(volume: Any, truth: Any, file: Path, mask: Path) -> None:
    """Refuse a segmentation whose voxels lie elsewhere than those of its volume.

    Both are turned by their own affines: one that lost its affine would be mirrored, silently.
    Volume and segmentation, ``truth``, are of one shape, as `open_volume` gives them.

    Raises:
        DataError: Names both files.
    """
    ends = [(0, length - 1) for length in volume.shape]
    corners = np.array([*itertools.product(*ends, [1])]).T  # (4, 8)
    apart = np.abs((volume.affine - truth.affine) @ corners).max()
    voxel = np.linalg.norm(volume.affine[:3, :3], axis=0).min()
    if not apart <= _ROUNDING * voxel:  # an affine may hold NaN
        refuse(
            f"{mask}: its affine puts voxels up to {apart:.3g} mm away from those of {file}; if "
            "both files have the same voxels, save the segmentation with the affine of the volume, "
            "else resample it to the volume"
        )


def load_values(file: Path) -> NDArray[np.float32]:
    """All values of a volume in canonical orientation.

    Raises:
        DataError: It is truncated or damaged.
    """
    with reading(file, "NIfTI file"):
        data = file.read_bytes()
        if file.name.lower().endswith(".gz"):  # all of it, so that its checksum is looked at
            data = gzip.decompress(data)
        # Of the class that the header asks for.
        volume = type(import_medical("nibabel").load(file)).from_bytes(data)
        return np.asarray(_upright(volume, file).dataobj, dtype=np.float32)


def write_classes(classes: NDArray[np.uint8], source: Path, file: Path) -> None:
    """Write classes, which are in canonical orientation, on the grid of the volume ``source``.

    Raises:
        DataError: They cannot be written.
    """
    nibabel = import_medical("nibabel")
    own, canonical = nibabel.load(source), open_volume(source)
    turned = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(canonical.affine), nibabel.io_orientation(own.affine)
    )
    header = own.header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"] = header["cal_max"] = 0  # a window of grey values
    image = type(own)(nibabel.apply_orientation(classes, turned), own.affine, header)
    try:
        with whole_file(file) as partial:
            nibabel.save(image, partial)
    except OSError as error:
        raise DataError(
            f"{file}: cannot be written ({error}); free some space, or choose another --output"
        ) from error


class VolumeCache:
    """The volumes that were used last, as many as fit into some megabytes; one is always kept.

    Threads share it: `domainnorm data check` reads with several. Each process has its own: copies
    that are sent to another process start empty.
    """

    def __init__(self, megabytes: int) -> None:
        self.limit = megabytes * 2**20
        self._volumes: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The volume of ``key``, from memory or else loaded."""
        with self._lock:
            if key in self._volumes:
                self._volumes.move_to_end(key)
                return self._volumes[key]
        volume = load()  # not in the lock: others read meanwhile
        with self._lock:
            self._volumes[key] = volume
            self._volumes.move_to_end(key)
            kept = self._volumes.values()
            while len(kept) > 1 and sum(one.nbytes for one in kept) > self.limit:
                self._volumes.popitem(last=False)
        return volume

    def __len__(self) -> int:
        """Number of volumes in memory."""
        return len(self._volumes)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts empty."""
        return VolumeCache, (self.limit // 2**20,)
