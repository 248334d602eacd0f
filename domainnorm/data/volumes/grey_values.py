"""Grey values of medical images: windows, the distance between pixels, optional packages."""

from __future__ import annotations

import importlib
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
    """Raise a DataError for a window that is not a centre and a positive width."""
    if window is not None and (len(window) != 2 or window[1] <= 0):
        raise DataError(f"{key}: {window}, expected [centre, width] with a width above 0")


def check_spacing(key: str, spacing: float | None) -> None:
    """Raise a DataError for a distance between pixels that is not positive."""
    if spacing is not None and spacing <= 0:
        raise DataError(f"{key}: {spacing}, expected millimetres above 0")


def window_range(window: list[float]) -> tuple[float, float]:
    """Lowest and highest value of a window of grey values: centre ∓ width / 2."""
    centre, width = window
    return centre - width / 2, centre + width / 2


def percentile_range(values: NDArray[Any]) -> tuple[float, float]:
    """Values below which 0.5 and 99.5 percent of the finite values lie."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, (0.5, 99.5))
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
