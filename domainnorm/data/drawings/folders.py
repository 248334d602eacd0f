"""Objects drawn into folders of one domain each: the images of samples."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import Split
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.objects import STYLES, draw_object
from domainnorm.data.drawings.shapes import SHAPES
from domainnorm.data.table import Row

# Draws an image and its mask.
Draw = Callable[[np.random.Generator], tuple[NDArray[np.uint8], NDArray[np.uint8]]]
# Of each class and domain; what a run needs of every split.
COUNTS: dict[Split, int] = {"train": 5, "val": 2, "test": 2}


def write_objects(
    root: Path, domain: str, style: str, classes: Sequence[str], seed: int, suffix: str = ".jpg"
) -> list[Row]:
    """Draw ``<domain>/<class>/<number>.jpg`` for every class.

    Args:
        root: Folder of the data; made when it does not exist.
        domain: Name of the folder.
        style: A name of ``STYLES``.
        classes: Names of folders; each is drawn as the shape it names, or else as the next one.
        seed: Seed of what is drawn.
        suffix: What the names of the files end with.

    Returns:
        One row for each image, with its split.
    """
    rows = []
    for position, label in enumerate(classes):
        splits = [split for split, count in COUNTS.items() for _ in range(count)]
        for number, split in enumerate(splits):
            file = f"{domain}/{label}/{number:05d}{suffix}"
            image, _ = draw_object(shape_of(label, position), style, generator_of(seed, file))
            write_image(root / file, image)
            rows.append(Row(file, domain, label, file, split))
    return rows


def shape_of(label: str, position: int) -> str:
    """The shape a class is drawn as: its own where there is one."""
    return label if label in SHAPES else list(SHAPES)[position % len(SHAPES)]


def generator_of(seed: int, name: str) -> np.random.Generator:
    """A generator for one file, so that no image depends on which others are drawn."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def write_scenes(
    root: Path, domain: str, draw: Draw, folders: tuple[str, str], seed: int
) -> list[Row]:
    """Draw images into ``<domain>/<folders[0]>``, their masks into ``folders[1]``.

    Args:
        root: Folder of the data; made when it does not exist.
        domain: Name of the folder.
        draw: Draws an image and its mask.
        folders: Names of the two folders.
        seed: Seed of what is drawn.

    Returns:
        One row for each image, with its split; its label is the path of the mask, and four
        pictures in a row are a group.
    """
    rows = []
    counts: dict[Split, int] = {"train": 12, "val": 8, "test": 8}
    splits = [split for split, count in counts.items() for _ in range(count)]
    for number, split in enumerate(splits):
        name = f"{number:03d}.png"
        file, mask_file = (f"{domain}/{folder}/{name}" for folder in folders)
        image, mask = draw(generator_of(seed, file))
        write_image(root / file, image)
        write_image(root / mask_file, mask)
        rows.append(Row(file, domain, mask_file, f"{domain}_{number // 4}", split))
    return rows


def styles_of(domains: Sequence[str]) -> dict[str, str]:
    """A style for each domain, different ones as long as there are some."""
    return {domain: list(STYLES)[at % len(STYLES)] for at, domain in enumerate(domains)}
