"""Drawn microscope images: a white among red blood cells under a stain, and tissue with nuclei."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

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


STAINS = {
    "tecom_rapid": Stain(
        (0.93, 0.87, 0.58), (0.84, 0.73, 0.42), (0.72, 0.73, 0.66), (0.40, 0.30, 0.52), 0.03
    ),
    "cellavision": Stain(
        (0.95, 0.91, 0.93), (0.88, 0.68, 0.72), (0.79, 0.72, 0.88), (0.38, 0.19, 0.55)
    ),
}
# Haematoxylin and eosin as five laboratories mix and scan them.
HOSPITALS = (
    Stain((0.95, 0.91, 0.94), (0.89, 0.66, 0.78), (0.83, 0.55, 0.74), (0.42, 0.25, 0.56)),
    Stain((0.93, 0.87, 0.88), (0.82, 0.58, 0.64), (0.74, 0.46, 0.56), (0.34, 0.18, 0.38)),
    Stain((0.92, 0.92, 0.96), (0.80, 0.64, 0.85), (0.70, 0.52, 0.82), (0.34, 0.28, 0.66)),
    Stain((0.96, 0.93, 0.95), (0.93, 0.72, 0.80), (0.88, 0.60, 0.76), (0.50, 0.30, 0.60)),
    Stain((0.97, 0.95, 0.90), (0.90, 0.72, 0.70), (0.82, 0.58, 0.66), (0.44, 0.28, 0.50)),
)


def draw_blood_cell(
    generator: np.random.Generator, stain: Stain, side: int, *, lobes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one white blood cell among red ones.

    Args:
        generator: Source of all that differs between images.
        stain: Colours.
        side: Height and width in pixels.
        lobes: Number of lobes of the nucleus: 1 as in a lymphocyte, 3 as in a neutrophil.

    Returns:
        The image (side, side, 3), RGB, and its classes (side, side): 0 background with red
        cells, 1 cytoplasm, 2 nucleus.
    """
    pixels = np.full((side, side, 3), stain.ground, np.float64)
    centre = side / 2 + generator.normal(0, 0.04 * side, 2)
    radius = side * generator.uniform(0.24, 0.31)
    for _ in range(7):
        angle = generator.uniform(0, 2 * np.pi)
        # Red cells lie around the white one, some of them cut off by the frame.
        place = centre + (radius + 0.2 * side * generator.uniform(0.8, 1.7)) * np.array(
            [np.sin(angle), np.cos(angle)]
        )
        _red_cell(pixels, stain, _blob(generator, side, place, 0.155 * side))
    body = _blob(generator, side, centre, radius)
    nucleus = np.zeros_like(body)
    turn = generator.uniform(0, 2 * np.pi)
    for lobe in range(lobes):
        angle = turn + lobe * 1.5
        away = 0.0 if lobes == 1 else 0.42 * radius
        place = centre + away * np.array([np.sin(angle), np.cos(angle)])
        nucleus |= _blob(generator, side, place, radius * (0.72 if lobes == 1 else 0.44))
    nucleus &= cv2.erode(np.uint8(body), np.ones((3, 3), np.uint8)).astype(bool)
    _fill(pixels, body, stain.cytoplasm, _grain(generator, side, 0.03 * side, 0.05))
    _fill(pixels, nucleus, stain.nucleus, _grain(generator, side, 0.025 * side, 0.12))
    classes = np.where(nucleus, 2, np.where(body, 1, 0)).astype(np.uint8)
    return _exposed(generator, pixels, stain.noise), classes


def draw_tissue(
    generator: np.random.Generator, stain: Stain, side: int, *, tumour: bool
) -> NDArray[np.uint8]:
    """Draw a patch of a lymph node: small, even nuclei, or in its middle large, uneven ones.

    Args:
        generator: Source of all that differs between images.
        stain: Colours.
        side: Height and width in pixels.
        tumour: Whether the middle is tumour.

    Returns:
        The image (side, side, 3), RGB.
    """
    texture = 0.5 + 0.5 * _grain(generator, side, 0.06 * side, 0.8)[..., None]
    pixels = np.array(stain.ground, np.float64) * (1 - texture) + np.array(stain.red_cell) * texture
    chromatin, flat = _grain(generator, side, 1.5, 0.1), np.zeros((side, side))
    for place in generator.uniform(0, side, (90, 2)):
        in_tumour = tumour and bool(np.abs(place - side / 2).max() < 0.36 * side)
        if in_tumour and generator.random() < 0.45:
            continue
        low, high = (0.045, 0.085) if in_tumour else (0.024, 0.034)
        radius = side * generator.uniform(low, high)
        shade = generator.uniform(0.95, 1.45) if in_tumour else generator.uniform(0.85, 1.1)
        body = _blob(generator, side, place, 1.7 * radius)
        _fill(pixels, body, stain.cytoplasm, flat)
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


def _red_cell(pixels: Pixels, stain: Stain, disc: Mask) -> None:
    # The middle of a red cell is thinner, hence paler.
    depth = cv2.distanceTransform(np.uint8(disc), cv2.DIST_L2, 3)
    paler = 0.55 * np.clip(depth / max(float(depth.max()), 1.0), 0, 1)[..., None] ** 2
    colour = np.array(stain.red_cell) * (1 - paler) + np.array(stain.ground) * paler
    pixels[disc] = colour[disc]


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
