"""Drawn volumes of a pelvis with a bright, zoned organ, as several scanners render it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]


@dataclass(frozen=True)
class Scanner:
    """How a scanner renders a body.

    Args:
        scale: Value of what is brightest, before noise.
        gamma: Exponent of the brightness; below 1 lifts what is dark.
        bias: Strength of the coil's uneven sensitivity, 0 for none.
        noise: Standard deviation of the noise as a share of ``scale``.
    """

    scale: float
    gamma: float
    bias: float
    noise: float


SCANNERS = (
    Scanner(900.0, 1.0, 0.1, 0.02),
    Scanner(260.0, 0.7, 0.9, 0.045),
    Scanner(1700.0, 1.5, 0.35, 0.03),
)


def draw_volume(
    generator: np.random.Generator, scanner: Scanner, shape: tuple[int, int, int]
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw one patient.

    Args:
        generator: Source of all that differs between patients.
        scanner: How the patient is rendered.
        shape: Number of voxels from left to right, back to front, feet to head.

    Returns:
        Grey values and organ (1, else 0), both of ``shape``. The organ is in the middle slices.
    """
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, count) for count in shape), indexing="ij")
    y = y + generator.normal(0, 0.04)
    fat = _inside(x, y, (0.0, 0.0), (0.92, 0.72)) * (0.75 + 0.05 * np.sin(9 * x))
    muscle = _inside(x, y, (0.0, 0.0), (0.78, 0.56))
    values = fat * (1 - muscle) + 0.28 * muscle
    for side in (-1, 1):  # heads of the thigh bones
        bone = _inside(x, y, (side * 0.58, 0.02), (0.15, 0.18))
        values = values * (1 - bone) + 0.5 * bone
    bladder = _ball((x, y, z), (0.0, 0.22, 0.75), (0.28, 0.2, 0.55))
    values = values * (1 - bladder) + 0.98 * bladder
    rectum = _inside(x, y, (0.02, -0.36), (0.11, 0.1))
    values = values * (1 - rectum) + 0.08 * rectum
    centre = (
        generator.normal(0, 0.03),
        generator.normal(-0.05, 0.03),
        generator.normal(-0.05, 0.05),
    )
    radii = (
        generator.uniform(0.22, 0.3),
        generator.uniform(0.17, 0.23),
        generator.uniform(0.45, 0.6),
    )
    organ = _ball((x, y, z), centre, radii)
    zone = _ball(
        (x, y, z), (centre[0], centre[1] + 0.05, centre[2]), tuple(0.68 * r for r in radii)
    )
    values = values * (1 - organ) + organ * (0.72 - 0.3 * zone)
    values = values + _texture(generator, shape) * muscle
    near = np.exp(-((y + 0.4) ** 2) / 0.2 - x**2 / 0.6)  # a coil behind the patient
    values = np.clip(values, 0, 1) ** scanner.gamma * (1 + scanner.bias * (near - 0.5))
    values = values + generator.normal(0, scanner.noise, shape)
    return np.int16(np.clip(scanner.scale * values, 0, 32_000)), np.uint8(organ > 0.5)


def _inside(x: Plane, y: Plane, centre: tuple[float, float], radii: tuple[float, float]) -> Plane:
    return _soft(1 - ((x - centre[0]) / radii[0]) ** 2 - ((y - centre[1]) / radii[1]) ** 2)


def _ball(grid: tuple[Plane, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> Plane:
    level = np.ones_like(grid[0])
    for axis, middle, radius in zip(grid, centre, radii, strict=True):
        level -= ((axis - middle) / radius) ** 2
    return _soft(level)


def _soft(level: Plane) -> Plane:
    return np.asarray(1 / (1 + np.exp(-np.clip(12 * level, -30, 30))))


def _texture(generator: np.random.Generator, shape: tuple[int, int, int]) -> Plane:
    noise = generator.normal(0, 1, shape)
    planes = [cv2.GaussianBlur(noise[..., k], (0, 0), 1.5) for k in range(shape[2])]
    return 0.12 * np.stack(planes, axis=-1)
