"""Drawings for samples: boxes in the colour and texture of their class, and a look per domain."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainnorm.data.dataset import Split
from domainnorm.data.masks import distinct_colours
from domainnorm.data.table import Row

Image8 = NDArray[np.uint8]
# Of each class and domain; what a run needs of every split.
COUNTS: dict[Split, int] = {"train": 5, "val": 2, "test": 2}
SCENES: dict[Split, int] = {"train": 12, "val": 8, "test": 8}
SCENE_SIZE = (96, 128)  # height and width
_COLOURS = np.array(distinct_colours(256), np.float32) / 255
_BOXES = 8  # of a scene


def generator_of(seed: int, name: str) -> np.random.Generator:
    """A generator for one file, so that no image depends on which others are drawn."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def draw_boxes(
    generator: np.random.Generator,
    things: Sequence[int],
    domain: str,
    size: tuple[int, int] = (64, 64),
    *,
    nested: bool = False,
) -> tuple[Image8, Image8]:
    """Boxes on a ground.

    Args:
        generator: Decides places, light and noise.
        things: What is shown, each a number from 1 that has a colour and stripes of its own.
        domain: Tint, contrast, blur and noise follow from its name.
        size: Height and width in pixels.
        nested: Whether every box lies in the middle of the one before.

    Returns:
        RGB image (H, W, 3), 0 to 255, and what each pixel shows (H, W), 0 for the ground.
    """
    mask = np.zeros(size, np.uint8)
    sides, limit = np.array(size), np.array([0.92, 1.0])  # the ground is seen below all boxes
    corner, extent = np.zeros(2), limit * sides
    for thing in things:
        if nested:
            inner = np.ceil(generator.uniform(0.45, 0.6) * extent)
            corner, extent = corner + (extent - inner) // 2, inner
        else:
            extent = generator.uniform(0.6, 0.95, 2) * sides * limit / max(len(things), 1) ** 0.5
            corner = generator.uniform(0, 1, 2) * (limit * sides - extent)
        top, left = corner.astype(int)
        bottom, right = np.ceil(corner + extent).astype(int)
        mask[top:bottom, left:right] = thing
    return _seen(generator, mask, domain), mask


def draw_grey(
    generator: np.random.Generator, things: Sequence[int], domain: str, size: int = 64
) -> Image8:
    """The brightness of `draw_boxes`, (size, size)."""
    image, _ = draw_boxes(generator, things, domain, (size, size))
    return np.asarray(image.mean(-1), dtype=np.uint8)


def draw_scene(
    generator: np.random.Generator, num_classes: int, domain: str, size: tuple[int, int] = (64, 96)
) -> tuple[Image8, Image8]:
    """Boxes of different classes on a ground of class 0; see `draw_boxes`."""
    things = np.resize(1 + generator.permutation(num_classes - 1), _BOXES)
    return draw_boxes(generator, things.tolist(), domain, size)


def draw_volume(
    generator: np.random.Generator, domain: str, shape: tuple[int, int, int]
) -> tuple[NDArray[np.int16], Image8]:
    """Values of a bright box in a grey body in dark air, and where that box is (1, else 0).

    Args:
        generator: Decides the box and the noise.
        domain: Brightness and noise follow from its name.
        shape: Number of voxels from left to right, back to front, feet to head.
    """
    axes = np.meshgrid(*(np.linspace(-1, 1, count) for count in shape), indexing="ij")
    away = np.abs(axes)
    centre, radii = generator.uniform(-0.08, 0.08, 3), generator.uniform(0.22, 0.34, 3)
    organ = np.all(
        [np.abs(a - c) <= r for a, c, r in zip(axes, centre, radii * [1, 1, 2], strict=True)], 0
    )
    look = generator_of(0, domain)
    values = 0.3 * (away[0] < 0.9) * (away[1] < 0.75) + 0.4 * organ
    noise = generator.normal(0, look.uniform(0.01, 0.04), shape)
    scaled = look.uniform(300, 1500) * (values ** look.uniform(0.6, 1.4) + noise)
    return np.clip(scaled, 0, 32_000).astype(np.int16), organ.astype(np.uint8)


def _seen(generator: np.random.Generator, mask: Image8, domain: str) -> Image8:
    """The colours and stripes of a mask, as images of a domain show them."""
    rows, columns = np.indices(mask.shape)
    angle, period = 2.4 * mask, 4.0 + 3 * (mask % 4)
    waves = np.sin(2 * np.pi * (rows * np.sin(angle) + columns * np.cos(angle)) / period)
    pixels = _COLOURS[mask] * (0.8 + 0.2 * waves[..., None]) * generator.uniform(0.85, 1.1)
    look = generator_of(0, domain)
    tint, contrast = look.uniform(0.55, 1.15, 3), look.uniform(0.6, 1.1)
    blur, noise = look.uniform(0.3, 0.9), look.uniform(0.005, 0.03)
    pixels = (0.5 + contrast * (pixels - 0.5)) * tint
    pixels = cv2.GaussianBlur(pixels, (0, 0), blur) + generator.normal(0, noise, pixels.shape)
    return np.asarray(np.round(255 * np.clip(pixels, 0, 1)), dtype=np.uint8)


def write_image(file: Path, pixels: NDArray[Any]) -> None:
    """Write an image in the format that the suffix names, and make the folder it is in.

    Args:
        file: Where to write.
        pixels: (H, W, 3) RGB, or (H, W) numbers, of 8 or 16 bits.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # OpenCV writes no grey PPM, and GIF not in every build.
    if file.suffix in (".gif", ".ppm"):
        Image.fromarray(pixels).save(file)
        return
    encoded = cv2.imencode(file.suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1]
    file.write_bytes(encoded.tobytes())


def write_objects(root: Path, domain: str, classes: Sequence[str], seed: int) -> list[Row]:
    """Write ``<domain>/<class>/<number>.jpg`` for every class; one row for each, with its split."""
    rows = []
    for thing, label in enumerate(classes, 1):
        splits = [split for split, count in COUNTS.items() for _ in range(count)]
        for number, split in enumerate(splits):
            file = f"{domain}/{label}/{number:05d}.jpg"
            write_image(root / file, draw_boxes(generator_of(seed, file), [thing], domain)[0])
            rows.append(Row(file, domain, label, file, split))
    return rows


def write_scenes(root: Path, domain: str, num_classes: int, seed: int) -> list[Row]:
    """Write ``<domain>/images/<number>.png`` and ``<domain>/masks/<number>.png``.

    Returns:
        One row for each image, with its split; its label is the path of the mask, and four
        pictures in a row are a group.
    """
    rows = []
    splits = [split for split, count in SCENES.items() for _ in range(count)]
    for number, split in enumerate(splits):
        file, mask_file = (f"{domain}/{folder}/{number:03d}.png" for folder in ("images", "masks"))
        image, mask = draw_scene(generator_of(seed, file), num_classes, domain, SCENE_SIZE)
        write_image(root / file, image)
        write_image(root / mask_file, mask)
        rows.append(Row(file, domain, mask_file, f"{domain}_{number // 4}", split))
    return rows
