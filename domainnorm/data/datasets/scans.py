"""Handwritten digits under three imaging conditions; nothing to download."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DOMAIN_KEYS, DomainDataset, Record, select_domains
from domainnorm.data.splits import cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError
from domainnorm.registry import register

SIZE = 32
_INK = NDArray[np.float64]  # (N, 32, 32), 0 paper to 1 ink
_PIXELS = NDArray[np.float64]  # (N, 32, 32, 3), 0 to 1


@register
class Scans(DomainDataset):
    """Scikit-learn's handwritten digits as three imaging domains: clean, colour_cast, textured.

    1,797 digits of 8 × 8 pixels (UCI optical recognition of handwritten digits) are drawn at
    32 × 32 × 3. ``clean`` is a smooth scan, light ink on a dark ground. ``colour_cast`` is the
    same scan under a strong colour cast and uneven light, slightly different from image to image:
    a shift that statistics of the channels can largely undo. ``textured`` is dark ink on rough
    paper: a shift that no statistics can undo. A digit has the same group and the same split in
    all domains, so a training digit of one domain is never a test digit of another. 60 % of the
    digits are for training, 10 % for validation, 30 % for testing.

    Args:
        domains: Domains to use, in this order; null for all.
        per_domain: Number of digits, 40 to 1797, with balanced classes; null for all.
        split_seed: Seed of the splits.

    Raises:
        DataError: An unknown domain, or ``per_domain`` out of range.

    Reference:
        Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI 1998, CC BY 4.0.
    """

    def __init__(
        self,
        *,
        domains: list[str] | None = None,
        per_domain: int | None = None,
        split_seed: int = 0,
    ) -> None:
        # Importing scikit-learn takes most of a second, which only this dataset should cost.
        from sklearn.datasets import load_digits  # noqa: PLC0415

        digits = load_digits()
        targets = [int(target) for target in digits.target]
        self.domain_names = select_domains(DOMAIN_KEYS, domains, list(_IMAGING))
        self.class_names = [str(digit) for digit in range(10)]
        chosen = _balanced(targets, per_domain)
        rows = [
            Row(f"{number:04d}", "digits", str(targets[number]), f"digit_{number:04d}", "train")
            for number in chosen
        ]
        rows = cut(cut(rows, "test", 0.3, split_seed), "val", 1 / 7, split_seed)
        self.records = [
            Record(f"{domain}/{row.file}", domain, int(row.label), row.group, row.split)
            for domain in self.domain_names
            for row in rows
        ]
        ink = _enlarged(np.asarray(digits.images, dtype=np.float64) / 16)
        self.pixels = np.concatenate(
            [_quantized(_IMAGING[domain](ink))[chosen] for domain in self.domain_names]
        )

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record: (32, 32, 3), RGB, 0 to 255."""
        return np.array(self.pixels[index])


def _balanced(targets: list[int], per_domain: int | None) -> list[int]:
    """Numbers of the chosen digits, ascending: the first ones of every class, in turns."""
    if per_domain is None:
        return list(range(len(targets)))
    if not 40 <= per_domain <= len(targets):
        raise DataError(
            f"data.per_domain: {per_domain}, expected 40 to {len(targets)} digits (every class "
            "needs training, validation and test images)"
        )
    seen = [0] * 10
    turns = []
    for number, target in enumerate(targets):
        turns.append((seen[target], target, number))
        seen[target] += 1
    return sorted(number for *_, number in sorted(turns)[:per_domain])


def _clean(ink: _INK) -> _PIXELS:
    grey = 0.06 + 0.88 * ink
    return np.repeat(grey[..., None], 3, axis=-1)


def _colour_cast(ink: _INK) -> _PIXELS:
    """Weak contrast over a strong cast, times a light field that falls off to one side."""
    draw = _uniform(1, len(ink))
    cast = np.array([0.62, 0.34, 0.12]) + 0.05 * (draw(3) - 0.5)  # (N, 3)
    gain = np.array([0.26, 0.36, 0.30]) * (0.9 + 0.20 * draw(1))  # (N, 3)
    scene = cast[:, None, None] + gain[:, None, None] * ink[..., None]
    axis = np.linspace(-1, 1, SIZE)
    slope = 0.22 * (draw(2) - 0.5)  # (N, 2)
    light = 1 + slope[:, :1, None] * axis[:, None] + slope[:, 1:, None] * axis
    return scene * light[..., None]


def _textured(ink: _INK) -> _PIXELS:
    """Dark ink on paper whose grain, blotches and ruling change from image to image."""
    draw = _uniform(2, len(ink))
    grain = np.zeros_like(ink)
    for cells, weight in ((4, 0.16), (8, 0.20), (16, 0.24), (SIZE, 0.16)):
        grid = draw(cells * cells).reshape(-1, cells, cells) - 0.5
        grain += weight * _enlarged(grid)
    axis = np.arange(SIZE)
    period, phase = 5 + 5 * draw(1)[..., None], draw(1)[..., None]
    ruling = np.cos(2 * np.pi * (axis[:, None] / period + phase + 0 * axis)) > 0.8
    paper = 0.76 + grain - 0.14 * ruling
    tint = np.array([1.0, 0.93, 0.80]) + 0.10 * (draw(3) - 0.5)  # (N, 3)
    darkness = 0.48 + 0.20 * draw(1)[..., None]
    return (paper - darkness * ink)[..., None] * tint[:, None, None]


_IMAGING: dict[str, Callable[[_INK], _PIXELS]] = {
    "clean": _clean,
    "colour_cast": _colour_cast,
    "textured": _textured,
}


def _uniform(stream: int, rows: int) -> Callable[[int], NDArray[np.float64]]:
    """A source of numbers in [0, 1), (rows, columns) at each call."""
    # Always drawn for all digits: an image must not depend on how many of them are used.
    generator = np.random.Generator(np.random.PCG64(stream))
    return lambda columns: generator.random((rows, columns))


def _enlarged(grids: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic enlargement of (N, k, k) grids to (N, 32, 32).

    In NumPy, because the last bit of an OpenCV resize differs between processors.
    """
    matrix = _cubic(grids.shape[-1])
    enlarged: NDArray[np.float64] = np.clip(matrix @ grids @ matrix.T, grids.min(), grids.max())
    return enlarged


def _cubic(cells: int) -> NDArray[np.float64]:
    """Weights (32, cells) of Catmull-Rom interpolation, edges replicated."""
    centre = (np.arange(SIZE) + 0.5) * cells / SIZE - 0.5
    start = np.floor(centre).astype(int)
    weights = np.zeros((SIZE, cells))
    for offset in (-1, 0, 1, 2):
        x = np.abs(centre - start - offset)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        column = np.clip(start + offset, 0, cells - 1)
        np.add.at(weights, (np.arange(SIZE), column), np.where(x <= 1, near, far))
    return weights


def _quantized(pixels: _PIXELS) -> NDArray[np.uint8]:
    # Rounding first to six digits keeps the last bits of a matrix product out of the result.
    return np.round(np.round(255 * np.clip(pixels, 0, 1), 6)).astype(np.uint8)
