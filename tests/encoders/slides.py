"""Drawn slides of several stains, whose domain nobody wrote down."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from domainnorm.encoders import style_features

Colour = tuple[float, float, float]
Mask = NDArray[np.bool_]
Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class Stain:
    """Colours of a stain, RGB, 0 to 1.

    Args:
        ground: The empty slide.
        red_cell: Red blood cells, or the stroma of tissue.
        cytoplasm: Body of a white blood cell, or of tissue cells.
        nucleus: Nuclei.
        noise: Standard deviation of the grain.
    """

    ground: Colour
    red_cell: Colour
    cytoplasm: Colour
    nucleus: Colour
    noise: float = 0.015


# Haematoxylin and eosin of two laboratories, and a rapid stain.
KINDS = [
    Stain((0.93, 0.87, 0.88), (0.82, 0.58, 0.64), (0.74, 0.46, 0.56), (0.34, 0.18, 0.38)),
    Stain((0.92, 0.92, 0.96), (0.80, 0.64, 0.85), (0.70, 0.52, 0.82), (0.34, 0.28, 0.66)),
    Stain((0.93, 0.87, 0.58), (0.84, 0.73, 0.42), (0.72, 0.73, 0.66), (0.40, 0.30, 0.52), 0.03),
]


def slides(kind, count, side=48):
    """Images (H, W, 3) of healthy tissue in one stain."""
    return [draw_tissue(np.random.default_rng([kind, k]), KINDS[kind], side) for k in range(count)]


def features(kind, count):
    """Style features (count, F) of slides of one stain."""
    pixels = torch.from_numpy(np.stack(slides(kind, count)))
    return style_features(pixels.permute(0, 3, 1, 2).float() / 255)


def draw_tissue(generator: np.random.Generator, stain: Stain, side: int) -> NDArray[np.uint8]:
    """Small, even nuclei of a lymph node, (side, side, 3)."""
    texture = 0.5 + 0.5 * _grain(generator, side, 0.06 * side, 0.8)[..., None]
    pixels = np.array(stain.ground, np.float64) * (1 - texture) + np.array(stain.red_cell) * texture
    chromatin, flat = _grain(generator, side, 1.5, 0.1), np.zeros((side, side))
    for place in generator.uniform(0, side, (90, 2)):
        radius, shade = side * generator.uniform(0.024, 0.034), generator.uniform(0.85, 1.1)
        _fill(pixels, _blob(generator, side, place, 1.7 * radius), stain.cytoplasm, flat)
        colour = tuple(min(shade * part, 1.0) for part in stain.nucleus)
        _fill(pixels, _blob(generator, side, place, radius), colour, chromatin)
    return _exposed(generator, pixels, stain.noise)


def _blob(
    generator: np.random.Generator, side: int, centre: NDArray[np.float64], radius: float
) -> Mask:
    """A round shape whose outline wavers."""
    # Only the surroundings are computed: tissue has a hundred nuclei of few pixels.
    reach = 1.5 * radius + 2
    first = np.clip(np.floor(centre - reach), 0, side).astype(int)
    last = np.clip(np.ceil(centre + reach), 0, side).astype(int)
    rows, columns = np.mgrid[first[0] : last[0], first[1] : last[1]]
    angle = np.arctan2(rows - centre[0], columns - centre[1])
    outline = np.ones(angle.shape)
    for wave in (2, 3, 5):
        phase = generator.uniform(0, 2 * np.pi)
        outline += generator.normal(0, 0.09 / wave) * np.cos(wave * angle + phase)
    blob = np.zeros((side, side), bool)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    blob[first[0] : last[0], first[1] : last[1]] = distance <= radius * outline
    return blob


def _fill(
    pixels: Pixels,
    where: Mask,
    colour: tuple[float, ...],
    texture: NDArray[np.float64],
) -> None:
    pixels[where] = np.array(colour) * (1 + texture[where])[:, None]


def _grain(
    generator: np.random.Generator, side: int, scale: float, strength: float
) -> NDArray[np.float64]:
    """Smooth noise of mean 0: (side, side)."""
    noise = cv2.GaussianBlur(generator.normal(0, 1, (side, side)), (0, 0), max(scale, 0.5))
    return np.asarray(strength * noise / noise.std(), dtype=np.float64)


def _exposed(generator: np.random.Generator, pixels: Pixels, noise: float) -> NDArray[np.uint8]:
    softened = cv2.GaussianBlur(pixels, (0, 0), 0.7) * generator.uniform(0.94, 1.04)
    noisy = softened + generator.normal(0, noise, pixels.shape)
    return np.asarray(255 * np.clip(noisy, 0, 1), dtype=np.uint8)
