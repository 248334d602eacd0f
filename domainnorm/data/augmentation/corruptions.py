"""The corruptions of ImageNet-C, and domains whose images have one of them."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from domainnorm.data.dataset import DomainDataset
from domainnorm.data.preprocessing import Pixels, Preprocessing
from domainnorm.ranges import CORRUPTED

_Image: TypeAlias = Any  # float64 (H, W, 3), 0 to 1
_SIDE = 224.0  # pixels, for which lengths are published


def corrupt(image: Pixels, name: str, severity: int, seed: int = 0) -> Pixels:
    """An image (H, W, 3) with one of the fifteen corruptions of ImageNet-C.

    Args:
        image: RGB, 0 to 255.
        name: One of `domainnorm.ranges.CORRUPTIONS`.
        severity: 1 to 5.
        seed: Of what is drawn.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations, ICLR 2019, arXiv:1903.12261, sec. 3, with the parameters of the authors'
        program.
        Differs: lengths, there for images of 224 × 224 pixels, go with the shorter side; images are
        not stored as JPEG afterwards; frost is drawn, there it is one of six photographs; what
        is blurred by motion repeats its border; a zoomed image is interpolated by OpenCV.
    """
    drawn = np.random.default_rng((seed, severity, *name.encode()))
    found = _CORRUPTIONS[name](image / 255.0, severity - 1, drawn)
    pixels: Pixels = (255 * found.clip(0, 1)).astype(np.uint8)
    return pixels


class CorruptedDataset(DomainDataset):
    """A dataset in which some domains have a corrupted copy, ``<domain>_corrupted``.

    A copy has the splits, groups, labels and masks of its domain, even if the corruption moves
    pixels (as in Kamann and Rother, CVPR 2020, arXiv:1908.05005).

    Args:
        dataset: Has the domains.
        domains: Those that have a twin.
        name: See `corrupt`.
        severity: See `corrupt`.

    Attributes:
        preprocessing: Images get the size of the input before they are corrupted; None: their own.
        originals: Position in the dataset of each record.
    """

    def __init__(
        self,
        dataset: DomainDataset,
        domains: Collection[str],
        name: str,
        severity: int,
    ) -> None:
        self.dataset = dataset
        self.corruption = name, severity
        self.preprocessing: Preprocessing | None = None
        self.keeps_size = dataset.keeps_size
        self.task = dataset.task
        self.reads = dataset.reads
        self.class_names = dataset.class_names
        self.table = dataset.table
        self.left_out = dataset.left_out
        self.domain_names = [*dataset.domain_names, *(f"{one}{CORRUPTED}" for one in domains)]
        self.originals = list(range(len(dataset.records)))
        self.records = list(dataset.records)
        for position, record in enumerate(dataset.records):
            if record.domain in domains:
                self.originals.append(position)
                self.records.append(replace(record, domain=f"{record.domain}{CORRUPTED}"))

    @property
    def class_colours(self) -> Any:
        """Those of the dataset."""
        return self.dataset.class_colours

    def with_size(self, dataset: DomainDataset, preprocessing: Preprocessing) -> CorruptedDataset:
        """The same, of a cached dataset, and at the size of the input."""
        sized = copy.copy(self)
        sized.dataset, sized.preprocessing, sized.keeps_size = dataset, preprocessing, False
        return sized

    def image(self, index: int) -> Pixels:
        """See `DomainDataset`."""
        position = self.originals[index]
        image = self.dataset.image(position)
        if index < len(self.dataset.records):
            return image
        if self.preprocessing is not None:
            image = self.preprocessing.fitted(image)
        return corrupt(image, *self.corruption, seed=zlib.crc32(self.records[index].file.encode()))

    def mask(self, index: int) -> Pixels:
        """See `DomainDataset`; of a twin that of its image."""
        if self.records[index].mask is None:
            return super().mask(index)  # says that there is none
        mask = self.dataset.mask(self.originals[index])
        if index < len(self.dataset.records) or self.preprocessing is None:
            return mask
        return self.preprocessing.fitted(mask, is_mask=True)

    def clean(self, index: int) -> Pixels:
        """See `DomainDataset`; of a twin that of its image, which is not corrupted."""
        if self.records[index].clean is None:
            return super().clean(index)  # says that there is none
        clean = self.dataset.clean(self.originals[index])
        if index < len(self.dataset.records) or self.preprocessing is None:
            return clean
        return self.preprocessing.fitted(clean)

    def original_mask(self, index: int) -> Pixels:
        """See `mask`."""
        return self.dataset.original_mask(self.originals[index])

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """Those of the image."""
        return self.dataset.sources(self.originals[index], is_mask=is_mask)


def _length(image: _Image) -> float:
    return float(min(image.shape[:2])) / _SIDE


def _gaussian_noise(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    return image + drawn.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[at], image.shape)


def _shot_noise(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    photons = (60, 25, 12, 5, 3)[at]
    return drawn.poisson(image * photons) / photons


def _impulse_noise(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[at]
    found, salt = drawn.random(image.shape) < share, drawn.random(image.shape) < 0.5
    return np.where(found, salt.astype(float), image)


def _defocus_blur(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    radius, alias = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[at]
    scaled = radius * _length(image)
    reach = math.ceil(scaled) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x**2 + y**2 <= scaled**2).astype(float)
    size = (3, 3) if radius <= 8 else (5, 5)
    disk = cv2.GaussianBlur(disk / disk.sum(), ksize=size, sigmaX=alias)
    return cv2.filter2D(image, -1, disk)


def _glass_blur(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    sigma, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[at]
    sigma, reach = sigma * _length(image), max(1, round(reach * _length(image)))
    height, width = image.shape[:2]
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    place = list(range(height * width))  # one pixel after the other changes places with a near one
    for _ in range(times):
        steps = drawn.integers(-reach, reach, (len(rows), len(columns), 2)).tolist()
        for y, of_row in zip(rows, steps, strict=True):
            for x, (dx, dy) in zip(columns, of_row, strict=True):
                here = min(y, height - 1) * width + min(x, width - 1)
                there = min(y + dy, height - 1) * width + min(x + dx, width - 1)
                place[here], place[there] = place[there], place[here]
    blurred = _blurred(image, sigma).reshape(-1, 3)
    return _blurred(blurred[place].reshape(image.shape), sigma)


def _motion_blur(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[at]
    size = _length(image)
    return _moved(image, radius * size, sigma * size, drawn.uniform(-45, 45))


def _zoom_blur(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    end, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[at]
    zooms = np.arange(1, end, step)
    return (image + sum(_zoomed(image, zoom) for zoom in zooms)) / (len(zooms) + 1)


def _snow(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    mean, std, zoom, least, radius, sigma, share = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[at]
    size = _length(image)
    flakes = _zoomed(drawn.normal(mean, std, image.shape[:2]), max(1.0, zoom * size))
    flakes = np.where(flakes < least, 0, flakes).clip(0, 1)
    flakes = _moved(flakes, radius * size, sigma * size, drawn.uniform(-135, -45))[..., None]
    grey = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)[..., None]
    paled = share * image + (1 - share) * np.maximum(image, grey * 1.5 + 0.5)
    return paled + flakes + np.rot90(flakes, k=2)


def _frost(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    own, frost = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[at]
    # Where a rough plain crosses its middle.
    ridges = 1 - np.abs(2 * _plasma(image, 1.6, drawn) - 1)
    crystals = (ridges**3)[..., None] * np.array([0.85, 0.95, 1.0])
    return own * image + frost * crystals


def _fog(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    amount, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[at]
    most = float(image.max())
    found = image + amount * _plasma(image, decay, drawn)[..., None]
    return found * most / (most + amount)


def _brightness(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    added = (0.1, 0.2, 0.3, 0.4, 0.5)[at]
    colours = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)
    colours[..., 2] = (colours[..., 2] + added).clip(0, 1)
    return cv2.cvtColor(colours, cv2.COLOR_HSV2RGB).astype(np.float64)


def _contrast(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[at]
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * kept + mean


def _elastic_transform(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    shares = (
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )
    height, width = image.shape[:2]
    # Published with 244 for the side of 224.
    moved, smooth, turned = (share * 244 * _length(image) for share in shares[at])
    centre = np.array([height, width], dtype=np.float32) // 2
    reach = min(height, width) // 3
    aside = np.array([reach, -reach])
    corners = np.stack([centre + reach, centre + aside, centre - reach]).astype(np.float32)
    shaken = corners + drawn.uniform(-turned, turned, corners.shape).astype(np.float32)
    affine = cv2.getAffineTransform(corners, shaken)
    image = cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    dx, dy = (
        moved
        * gaussian_filter(drawn.uniform(-1, 1, (height, width)), smooth, mode="reflect", truncate=3)
        for _ in range(2)
    )
    y, x = np.mgrid[:height, :width]
    channels = [
        map_coordinates(image[..., c], [y + dy, x + dx], order=1, mode="reflect") for c in range(3)
    ]
    return np.stack(channels, -1)


def _pixelate(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[at]
    height, width = image.shape[:2]
    size = max(1, int(width * share)), max(1, int(height * share))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def _jpeg_compression(image: _Image, at: int, drawn: np.random.Generator) -> _Image:
    pixels = np.rint(image[..., ::-1] * 255).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, (25, 18, 15, 10, 7)[at]]
    stored: Any = cv2.imencode(".jpg", pixels, quality)[1]
    found: Any = cv2.imdecode(stored, cv2.IMREAD_COLOR)
    return found[..., ::-1] / 255.0


def _blurred(image: _Image, sigma: float) -> _Image:
    found: _Image = gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
    return found


def _moved(image: _Image, radius: float, sigma: float, angle: float) -> _Image:
    """Shifted along a line by up to twice the radius, in degrees, half a bell weighing them."""
    shifts = np.arange(max(1, round(2 * radius + 1)))
    weights = np.exp(-(shifts**2) / (2 * max(sigma, 1e-6) ** 2))
    turn = math.radians(angle)
    found = np.zeros_like(image)
    height, width = image.shape[:2]
    for shift, weight in zip(shifts, weights / weights.sum(), strict=True):
        x, y = round(shift * math.cos(turn)), round(shift * math.sin(turn))
        columns = (np.arange(width) + x).clip(0, width - 1)
        rows = (np.arange(height) + y).clip(0, height - 1)
        found += weight * image[rows[:, None], columns]
    return found


def _zoomed(image: _Image, zoom: float) -> _Image:
    """The middle of an image, at its size."""
    height, width = image.shape[:2]
    h, w = math.ceil(height / zoom), math.ceil(width / zoom)
    top, left = (height - h) // 2, (width - w) // 2
    part = image[top : top + h, left : left + w]
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)


def _plasma(image: _Image, decay: float, drawn: np.random.Generator) -> NDArray[np.float64]:
    """Heights (H, W), 0 to 1, of a random plain by the diamond-square algorithm.

    A square of cells is a torus; each middle is the mean of its corners and noise, whose size falls
    by ``decay`` with every halving.

    Reference:
        Fournier, Fussell and Carpenter, Computer rendering of stochastic models, CACM 1982.
    """
    height, width = image.shape[:2]
    size = 2 ** math.ceil(math.log2(max(height, width, 2)))
    plain, step, noise = np.zeros((size, size)), size, 100.0

    def mean(total: NDArray[np.float64]) -> NDArray[np.float64]:
        return total / 4 + noise * drawn.uniform(-noise, noise, total.shape)

    while step >= 2:
        half = step // 2
        corners = plain[::step, ::step]
        along = corners + np.roll(corners, -1, 0)
        plain[half::step, half::step] = mean(along + np.roll(along, -1, 1))
        middles = plain[half::step, half::step]
        above = middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1)
        left = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0)
        plain[::step, half::step], plain[half::step, ::step] = mean(above), mean(left)
        step, noise = half, noise / decay
    plain -= plain.min()
    heights: NDArray[np.float64] = (plain / plain.max())[:height, :width]
    return heights


_CORRUPTIONS: dict[str, Callable[[_Image, int, np.random.Generator], _Image]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
