"""The file formats of the well-known sets of digits: arrays of all images and their labels."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from domainnorm.errors import DataError

Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]  # (N, H, W) or (N, H, W, 3), and (N,)


def read_idx(images: Path, labels: Path) -> Digits:
    """MNIST's format, unpacked or as ``.gz``.

    Raises:
        DataError: A file is missing, truncated, or the two do not belong together.
    """
    pixels, digits = _idx(images, 3), _idx(labels, 1).astype(np.int64)
    return _checked(images, pixels, digits)


def read_libsvm(file: Path) -> Digits:
    """USPS as LIBSVM's ``usps.bz2``: labels 1 to 10, then 256 values from -1 to 1.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        lines = bz2.decompress(_bytes(file)).decode().splitlines()
        rows = np.array([[word.partition(":")[2] for word in line.split()[1:]] for line in lines])
        digits = np.array([int(float(line.split()[0])) - 1 for line in lines])
        grey = rows.astype(np.float64).reshape(-1, 16, 16)
    except (OSError, ValueError, IndexError) as error:
        raise _damaged(file, error) from error
    return _checked(file, np.round(127.5 * (grey + 1)).astype(np.uint8), digits)


def read_mat(file: Path) -> Digits:
    """SVHN's format: ``X`` (32, 32, 3, N) and ``y`` (N, 1), where 10 may mean the digit 0.

    Raises:
        DataError: The file is missing or damaged.
    """
    _bytes(file, 1)
    try:
        content: dict[str, Any] = loadmat(file, variable_names=["X", "y"])
        pixels = np.ascontiguousarray(np.moveaxis(content["X"], -1, 0), dtype=np.uint8)
        digits = content["y"].reshape(-1).astype(np.int64) % 10
    except (OSError, ValueError, KeyError, TypeError, MatReadError) as error:
        raise _damaged(file, error) from error
    return _checked(file, pixels, digits)


def write_idx(file: Path, values: NDArray[np.uint8]) -> None:
    """Write an array in MNIST's format, as ``.gz`` where the name says so."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    data = header + values.tobytes()
    # Without a time in its header, the same digits give the same file.
    file.write_bytes(gzip.compress(data, mtime=0) if file.suffix == ".gz" else data)


def write_libsvm(file: Path, pixels: NDArray[np.uint8], digits: Iterable[int]) -> None:
    """Write (N, 16, 16) in the format of LIBSVM's ``usps.bz2``."""
    lines = (
        f"{digit + 1} "
        + " ".join(f"{at}:{value / 127.5 - 1:.4f}" for at, value in enumerate(image.flat, 1))
        for image, digit in zip(pixels, digits, strict=True)
    )
    file.write_bytes(bz2.compress("\n".join(lines).encode()))


def _idx(file: Path, axes: int) -> NDArray[np.uint8]:
    packed = file.with_name(f"{file.name}.gz")
    source = packed if packed.is_file() and not file.is_file() else file
    try:
        data = _bytes(source)
        data = gzip.decompress(data) if source == packed else data
        if tuple(data[:4]) != (0, 0, 8, axes):
            raise ValueError(f"starts with {data[:4].hex()}, expected 0000080{axes}")
        shape = np.frombuffer(data, ">i4", axes, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError) as error:
        raise _damaged(source, error) from error


def _bytes(file: Path, count: int = -1) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise DataError(
            f"{file}: {error.strerror}; put the official file there (docs/data.md)"
        ) from error


def _checked(file: Path, pixels: NDArray[np.uint8], digits: NDArray[np.int64]) -> Digits:
    if len(pixels) != len(digits):
        raise DataError(f"{file}: {len(pixels)} images and {len(digits)} labels; get both again")
    if digits.size and not 0 <= digits.min() <= digits.max() <= 9:
        raise DataError(f"{file}: labels {digits.min()} to {digits.max()}, expected 0 to 9")
    return pixels, digits


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: not in the format its name says ({error}); get the file again")
