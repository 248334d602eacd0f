"""Digits of MNIST, MNIST-M, USPS, SVHN and Synthetic Digits, in the files they come in."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    DomainDataset,
    Record,
    Split,
    resolved_root,
    select_domains,
)
from domainnorm.data.datasets.drawing import draw_boxes, draw_grey, generator_of, write_image
from domainnorm.data.datasets.objects import class_of, read_image_list
from domainnorm.data.images import read_image
from domainnorm.data.refusals import reading
from domainnorm.data.splits import check_fraction, cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError
from domainnorm.registry import register

_FORMAT, _AGAIN = "file of the format that its name says", "get the file again"
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # (N, H, W) or (N, H, W, 3), and (N,)


def read_idx(images: Path, labels: Path) -> Arrays:
    """MNIST's format, unpacked or as ``.gz``.

    Raises:
        DataError: A file is missing, truncated, or the two do not belong together.
    """
    pixels, digits = _idx(images, 3), _idx(labels, 1).astype(np.int64)
    return _checked(images, pixels, digits)


def read_libsvm(file: Path) -> Arrays:
    """USPS as LIBSVM's ``usps.bz2``: labels 1 to 10, then 256 values from -1 to 1.

    Raises:
        DataError: The file is missing or damaged.
    """
    from sklearn.datasets import load_svmlight_file  # noqa: PLC0415  (takes most of a second)

    _bytes(file, 1)
    with reading(file, _FORMAT, _AGAIN):
        values, labels = load_svmlight_file(str(file), n_features=256)
    grey = np.round(127.5 * (values.toarray().reshape(-1, 16, 16) + 1)).astype(np.uint8)
    return _checked(file, grey, labels.astype(np.int64) - 1)


def read_mat(file: Path) -> Arrays:
    """SVHN's format: ``X`` (32, 32, 3, N) and ``y`` (N, 1), where 10 may mean the digit 0.

    Raises:
        DataError: The file is missing or damaged.
    """
    _bytes(file, 1)
    with reading(file, _FORMAT, _AGAIN):
        content: dict[str, Any] = loadmat(file, variable_names=["X", "y"])
        pixels = np.ascontiguousarray(np.moveaxis(content["X"], -1, 0), dtype=np.uint8)
        digits = content["y"].reshape(-1).astype(np.int64) % 10
    return _checked(file, pixels, digits)


def write_idx(file: Path, values: NDArray[np.uint8]) -> None:
    """Write an array in MNIST's format, as ``.gz`` where the name says so."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    data = header + values.tobytes()
    # Without a time in its header, the same digits give the same file.
    file.write_bytes(gzip.compress(data, mtime=0) if file.suffix == ".gz" else data)


def _idx(file: Path, axes: int) -> NDArray[np.uint8]:
    packed = file.with_name(f"{file.name}.gz")
    source = packed if packed.is_file() and not file.is_file() else file
    with reading(source, _FORMAT, _AGAIN):
        data = _bytes(source)
        data = gzip.decompress(data) if source == packed else data
        if tuple(data[:4]) != (0, 0, 8, axes):
            raise ValueError(f"starts with {data[:4].hex()}, expected 0000080{axes}")
        shape = np.frombuffer(data, ">i4", axes, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _bytes(file: Path, count: int = -1) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise DataError(
            f"{file}: {error.strerror}; put the official file there (docs/data.md)"
        ) from error


def _checked(file: Path, pixels: NDArray[np.uint8], digits: NDArray[np.int64]) -> Arrays:
    if len(pixels) != len(digits):
        raise DataError(f"{file}: {len(pixels)} images and {len(digits)} labels; get both again")
    if digits.size and not 0 <= digits.min() <= digits.max() <= 9:
        raise DataError(f"{file}: labels {digits.min()} to {digits.max()}, expected 0 to 9")
    return pixels, digits


_PARTS: tuple[Split, Split] = ("train", "test")
_MNIST = {"train": "train", "test": "t10k"}
_USPS = {"train": "usps.bz2", "test": "usps.t.bz2"}
_ARRAYS: dict[str, Callable[[Path, str], Arrays]] = {
    "mnist": lambda folder, part: read_idx(
        folder / f"{_MNIST[part]}-images-idx3-ubyte", folder / f"{_MNIST[part]}-labels-idx1-ubyte"
    ),
    "usps": lambda folder, part: read_libsvm(folder / _USPS[part]),
    "svhn": lambda folder, part: read_mat(folder / f"{part}_32x32.mat"),
    "synth": lambda folder, part: read_mat(folder / f"synth_{part}_32x32.mat"),
}
DOMAINS = ("mnist", "mnist_m", "usps", "svhn", "synth")


@register
class Digits(DomainDataset):
    """Digits 0 to 9 of five origins: mnist, mnist_m, usps, svhn, synth, with official test sets.

    Validation images are drawn from the training images, by class. All images are kept in memory
    except those of ``mnist_m``, which are files. ``mnist_m`` has the same digits as MNIST, split by
    split: a validation image of one domain may show a training digit of the other.

    Args:
        root: Folder with one folder for each domain that is there: ``mnist`` (IDX files, packed
            or not), ``mnist_m`` (two folders of images and their lists), ``usps`` (``usps.bz2``
            and ``usps.t.bz2`` of LIBSVM), ``svhn`` (``train_32x32.mat``, ``test_32x32.mat``) and
            ``synth`` (``synth_train_32x32.mat``, ``synth_test_32x32.mat``).
        domains: Domains to use, in this order; null for those whose folders are there.
        val_fraction: Share of the training images to validate on, in (0, 1).
        split_seed: Seed of that draw.

    Raises:
        DataError: The root or a file is missing or damaged; the message names it.

    Reference:
        Ganin & Lempitsky, "Unsupervised domain adaptation by backpropagation", ICML 2015,
        arXiv 1409.7495 (MNIST-M, Synthetic Digits); LeCun et al. 1998; Hull 1994; Netzer et al.
        2011.
    """

    homepage = "https://github.com/domainadaptation/datasets"
    licence = "each its own; SVHN and Synthetic Digits non-commercial, MNIST usually CC BY-SA 3.0"
    layout = "{mnist,mnist_m,usps,svhn,synth}/<official files>"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        check_fraction("data.val_fraction", val_fraction)
        self.root = resolved_root(root)
        known = [name for name in DOMAINS if (self.root / name).is_dir()] or list(DOMAINS)
        self.domain_names = select_domains(DOMAIN_KEYS, domains, known)
        self.class_names = [str(digit) for digit in range(10)]
        self._arrays: dict[str, NDArray[np.uint8]] = {}
        rows = [
            row
            for domain in self.domain_names
            for part in _PARTS
            for row in self._rows(domain, part)
        ]
        self.records = [
            Record(row.file, row.domain, int(row.label), row.group, row.split)
            for row in cut(rows, "val", val_fraction, split_seed)
        ]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record: (H, W, 3), RGB, 0 to 255."""
        file = self.records[index].file
        folder, _, name = file.rpartition("/")
        if folder not in self._arrays:
            return read_image(self.root / file)
        pixels = self._arrays[folder][int(name)]
        return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels.copy()

    def _rows(self, domain: str, part: Split) -> list[Row]:
        folder = self.root / domain
        if domain == "mnist_m":
            listed = folder / f"mnist_m_{part}_labels.txt"
            named = [
                (f"{domain}/mnist_m_{part}/{path}", class_of(self.class_names, label, listed))
                for path, label in read_image_list(listed)
            ]
            if lacking := [path for path, label in named if not label]:
                raise DataError(f"{listed}: {lacking[0]} has no label; get the list again")
        else:
            key = f"{domain}/{part}"
            self._arrays[key], digits = _ARRAYS[domain](folder, part)
            named = [(f"{key}/{at:06d}", str(digit)) for at, digit in enumerate(digits.tolist())]
        return [Row(file, domain, label, file, part) for file, label in named]

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Eight training and four test images of every digit, for each origin."""
        for domain in DOMAINS:
            (root / domain).mkdir(parents=True, exist_ok=True)
            for part in _PARTS:
                digits = [digit for digit in range(10) for _ in range(8 if part == "train" else 4)]
                names = (f"{domain}{part}{at}" for at in range(len(digits)))
                drawn = [
                    _drawn(domain, digit, generator_of(seed, name))
                    for digit, name in zip(digits, names, strict=True)
                ]
                _write(root / domain, part, np.stack(drawn), digits)


def _drawn(domain: str, digit: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """A box for each digit, grey or in colours as the files of the domain."""
    if domain in ("mnist", "usps"):
        return draw_grey(generator, [digit + 1], domain, {"mnist": 28, "usps": 16}[domain])
    return draw_boxes(generator, [digit + 1], domain, (32, 32))[0]


def _write(folder: Path, part: str, pixels: NDArray[np.uint8], digits: list[int]) -> None:
    """Write one part of one domain in its official files."""
    name, labels = folder.name, np.array(digits, np.uint8)
    if name == "mnist":
        write_idx(folder / f"{_MNIST[part]}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{_MNIST[part]}-labels-idx1-ubyte.gz", labels)
    elif name == "usps":
        written = (
            f"{digit + 1} " + " ".join(f"{k}:{v / 127.5 - 1:.4f}" for k, v in enumerate(grey, 1))
            for grey, digit in zip(pixels.reshape(-1, 256), digits, strict=True)
        )
        (folder / _USPS[part]).write_bytes(bz2.compress("\n".join(written).encode()))
    elif name == "mnist_m":
        lines = []
        for number, (image, digit) in enumerate(zip(pixels, digits, strict=True)):
            write_image(folder / f"mnist_m_{part}" / f"{number:08d}.png", image)
            lines.append(f"{number:08d}.png {digit}\n")
        (folder / f"mnist_m_{part}_labels.txt").write_text("".join(lines))
    else:
        prefix = "synth_" if name == "synth" else ""
        official = np.where((labels == 0) & (name == "svhn"), 10, labels)[:, None]
        content = {"X": np.moveaxis(pixels, 0, -1), "y": official}
        savemat(folder / f"{prefix}{part}_32x32.mat", content)
