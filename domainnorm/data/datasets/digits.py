"""Digits of MNIST, MNIST-M, USPS, SVHN and Synthetic Digits, in the files they come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from domainnorm.data.class_files import read_image_list
from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    DomainDataset,
    Record,
    Split,
    resolved_root,
    select_domains,
)
from domainnorm.data.datasets import digit_files
from domainnorm.data.drawings.digits import draw_blended, draw_grey, draw_street
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.folders import generator_of
from domainnorm.data.images import read_image
from domainnorm.data.splits import check_fraction, cut
from domainnorm.data.table import Row
from domainnorm.registry import register

_PARTS: tuple[Split, Split] = ("train", "test")
_MNIST = {"train": "train", "test": "t10k"}
_USPS = {"train": "usps.bz2", "test": "usps.t.bz2"}
_ARRAYS: dict[str, Callable[[Path, str], digit_files.Digits]] = {
    "mnist": lambda folder, part: digit_files.read_idx(
        folder / f"{_MNIST[part]}-images-idx3-ubyte", folder / f"{_MNIST[part]}-labels-idx1-ubyte"
    ),
    "usps": lambda folder, part: digit_files.read_libsvm(folder / _USPS[part]),
    "svhn": lambda folder, part: digit_files.read_mat(folder / f"{part}_32x32.mat"),
    "synth": lambda folder, part: digit_files.read_mat(folder / f"synth_{part}_32x32.mat"),
}
DOMAINS = ("mnist", "mnist_m", "usps", "svhn", "synth")


@register
class Digits(DomainDataset):
    """Digits 0 to 9 of five origins: mnist, mnist_m, usps, svhn, synth, with official test sets.

    Validation images are drawn from the training images, by class. All images are kept in memory
    except those of ``mnist_m``, which are files. Digits of ``mnist_m`` are MNIST's own, part by
    part: a validation image of one domain may show a training digit of the other.

    Args:
        root: Folder with one folder for each domain that is there: ``mnist`` (IDX files, packed
            or not), ``mnist_m`` (two folders of images and their lists), ``usps`` (``usps.bz2``
            and ``usps.t.bz2`` of LIBSVM), ``svhn`` (``train_32x32.mat``, ``test_32x32.mat``) and
            ``synth`` (``synth_train_32x32.mat``, ``synth_test_32x32.mat``).
        domains: Domains to use, in this order; those whose folders are there when None.
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
            pairs = read_image_list(folder / f"mnist_m_{part}_labels.txt")
            named = [(f"{domain}/mnist_m_{part}/{path}", label) for path, label in pairs]
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
                generators = (
                    generator_of(seed, f"{domain}{part}{at}") for at in range(len(digits))
                )
                draw, size = _DRAWN[domain]
                pairs = zip(digits, generators, strict=True)
                pixels = np.stack([draw(digit, generator, size) for digit, generator in pairs])
                _write(root / domain, part, pixels, digits)


_DRAWN: dict[str, tuple[Callable[[int, np.random.Generator, int], NDArray[np.uint8]], int]] = {
    "mnist": (draw_grey, 28),
    "mnist_m": (draw_blended, 32),
    "usps": (draw_grey, 16),
    "svhn": (draw_street, 32),
    "synth": (draw_street, 32),
}


def _write(folder: Path, part: str, pixels: NDArray[np.uint8], digits: list[int]) -> None:
    """Write one part of one domain in its official files."""
    name, labels = folder.name, np.array(digits, np.uint8)
    if name == "mnist":
        digit_files.write_idx(folder / f"{_MNIST[part]}-images-idx3-ubyte.gz", pixels)
        digit_files.write_idx(folder / f"{_MNIST[part]}-labels-idx1-ubyte.gz", labels)
    elif name == "usps":
        digit_files.write_libsvm(folder / _USPS[part], pixels, digits)
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
