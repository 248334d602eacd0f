"""Volumes and their slices: optional packages, windows of grey values, spacing, a bounded cache."""

from __future__ import annotations

import importlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.errors import DataError


def import_medical(package: str) -> ModuleType:
    """Import a package of the extra ``medical``.

    Raises:
        DataError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DataError(
            f"package '{package}' is needed to read this data, and cannot be imported ({error}); "
            "pip install 'domainnorm[medical]'"
        ) from None


def check_window(key: str, window: list[float] | None) -> None:
    """Refuse a window that is not a centre and a positive width.

    Raises:
        DataError: Names the key.
    """
    if window is not None and (len(window) != 2 or window[1] <= 0):
        raise DataError(f"{key}: {window}, expected [centre, width] with a width above 0")


def check_spacing(key: str, spacing: float | None) -> None:
    """Refuse a distance between pixels that is not positive.

    Raises:
        DataError: Names the key.
    """
    if spacing is not None and spacing <= 0:
        raise DataError(f"{key}: {spacing}, expected millimetres above 0")


def window_range(window: list[float]) -> tuple[float, float]:
    """Lowest and highest value of a window of grey values: centre ∓ width / 2."""
    centre, width = window
    return centre - width / 2, centre + width / 2


def percentile_range(
    values: NDArray[Any], lower: float = 0.5, upper: float = 99.5
) -> tuple[float, float]:
    """Values below which ``lower`` and ``upper`` percent of the finite values lie."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, (lower, upper))
    return float(low), float(high)


def to_grey(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Values of any number type as 0 to 255: ``round(255 · clip((v − low) / (high − low), 0, 1))``.

    Values that are no number are 0, and so is everything when ``low`` equals ``high``.
    """
    scaled = (values.astype(np.float32) - low) / max(high - low, np.finfo(np.float32).tiny)
    return np.asarray(np.nan_to_num(np.round(255 * np.clip(scaled, 0, 1))), dtype=np.uint8)


def resample(
    plane: NDArray[np.uint8], spacing: tuple[float, float], target: float, *, classes: bool
) -> NDArray[np.uint8]:
    """A slice at another distance between pixels.

    Args:
        plane: (H, W), or (H, W, channels).
        spacing: Distance between its rows and between its columns, in mm.
        target: Distance wanted, in mm.
        classes: Whether values are classes, of which the nearest counts, or grey values.
    """
    height, width = plane.shape[:2]
    rows = max(1, round(height * spacing[0] / target))
    columns = max(1, round(width * spacing[1] / target))
    if (rows, columns) == (height, width):
        return plane
    # Areas are averaged where the slice shrinks, because other kernels alias.
    shrinks = rows * columns < height * width
    grey = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    kernel = cv2.INTER_NEAREST_EXACT if classes else grey  # INTER_NEAREST is off by half a pixel
    return np.asarray(cv2.resize(plane, (columns, rows), interpolation=kernel), dtype=np.uint8)


class VolumeCache:
    """The volumes that were used last, as many as fit into a number of bytes.

    Threads share it: `domainnorm data check` reads with several. Each process has its own: copies
    that are sent to another process start empty.

    Args:
        megabytes: Upper bound; a single volume above it is still kept until the next one.
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
            while len(self._volumes) > 1 and self._bytes() > self.limit:
                self._volumes.popitem(last=False)
        return volume

    def __len__(self) -> int:
        """Number of volumes in memory."""
        return len(self._volumes)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the volumes."""
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start empty."""
        self.limit = state["limit"]
        self._volumes = OrderedDict()
        self._lock = threading.Lock()

    def _bytes(self) -> int:
        return sum(volume.nbytes for volume in self._volumes.values())
