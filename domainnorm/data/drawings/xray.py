"""Drawn frontal chest X-rays with findings, as three devices render them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]


@dataclass(frozen=True)
class Device:
    """How a device renders a chest.

    Args:
        gamma: Exponent of the brightness; above 1 is darker.
        contrast: Factor around the middle grey.
        noise: Standard deviation of the grain, 0 to 1.
        border: Share of the image that is unexposed at each side.
    """

    gamma: float
    contrast: float
    noise: float
    border: float


DEVICES = (
    Device(0.85, 1.0, 0.02, 0.0),
    Device(1.35, 1.25, 0.035, 0.05),
    Device(0.6, 0.75, 0.015, 0.09),
)


def draw_chest(
    generator: np.random.Generator, device: Device, side: int, findings: Collection[str]
) -> NDArray[np.uint8]:
    """Draw one chest: (side, side), grey.

    Args:
        generator: Source of all that differs between patients.
        device: How it is rendered.
        side: Height and width in pixels.
        findings: What to show, among cardiomegaly, effusion, consolidation, pneumonia, edema,
            atelectasis and pneumothorax.
    """
    rows, columns = np.mgrid[:side, :side] / side
    columns = (columns - 0.5) * generator.uniform(0.95, 1.08) + 0.5 + generator.normal(0, 0.01)
    rows = rows + generator.normal(0, 0.015)
    body = _soft(1.0 - ((columns - 0.5) / (0.36 + 0.16 * rows)) ** 4, 0.12)
    lungs = [_lung(rows, columns, sign) for sign in (-1, 1)]
    density = 0.62 * body
    for lung in lungs:
        density = density * (1 - 0.62 * lung)
    density += 0.10 * _ribs(rows, columns) * body
    density += 0.22 * _soft(1 - np.abs(columns - 0.5) / 0.055, 0.4)
    density += 0.28 * _heart(rows, columns, 1.45 if "cardiomegaly" in findings else 1.0)
    density = _with_findings(generator, (rows, columns), lungs, density, findings)
    density = cv2.GaussianBlur(density, (0, 0), 0.008 * side)
    grey = 0.5 + device.contrast * (np.clip(density, 0, 1) ** device.gamma - 0.5)
    grey += generator.normal(0, device.noise, grey.shape)
    edge = int(device.border * side)
    if edge:
        grey[:, :edge] = grey[:, -edge:] = 0.02
    return np.asarray(255 * np.clip(grey, 0, 1), dtype=np.uint8)


def _soft(level: Plane, width: float) -> Plane:
    """1 where ``level`` is well above 0, 0 where it is below, smooth between."""
    return np.asarray(1 / (1 + np.exp(-np.clip(level / (0.25 * width), -30, 30))))


def _lung(rows: Plane, columns: Plane, sign: int) -> Plane:
    # Lungs are ellipses that lean to the middle at the top, cut by the dome of the diaphragm.
    centre = 0.5 + sign * (0.165 + 0.06 * (rows - 0.45))
    ellipse = 1 - ((columns - centre) / 0.135) ** 2 - ((rows - 0.47) / 0.36) ** 2
    dome = 0.76 + (0.03 if sign > 0 else 0.0) + 1.6 * (columns - centre) ** 2 - rows
    return _soft(ellipse, 0.25) * _soft(dome, 0.06)


def _ribs(rows: Plane, columns: Plane) -> Plane:
    ribs = np.zeros_like(rows)
    for number in range(8):
        line = 0.14 + 0.085 * number + 0.9 * (np.abs(columns - 0.5) - 0.13) ** 2
        ribs += np.exp(-(((rows - line) / 0.011) ** 2))
    return np.clip(ribs, 0, 1)


def _heart(rows: Plane, columns: Plane, size: float) -> Plane:
    shape = 1 - ((columns - 0.53) / (0.125 * size)) ** 2 - ((rows - 0.62) / 0.15) ** 2
    return _soft(shape, 0.3)


def _with_findings(
    generator: np.random.Generator,
    grid: tuple[Plane, Plane],
    lungs: list[Plane],
    density: Plane,
    findings: Collection[str],
) -> Plane:
    rows, columns = grid
    side = int(generator.integers(2))
    lung, sign = lungs[side], (-1, 1)[side]
    if "effusion" in findings:
        level = rows - 0.64 + 0.5 * sign * (0.5 + sign * 0.28 - columns)
        density = density + 0.42 * lung * _soft(level, 0.08)
    for name, strength in (("consolidation", 0.4), ("pneumonia", 0.3)):
        if name in findings:
            place = (generator.uniform(0.35, 0.6), 0.5 + sign * generator.uniform(0.14, 0.22))
            cloud = np.hypot(rows - place[0], columns - place[1]) / generator.uniform(0.06, 0.1)
            density = density + strength * np.exp(-(cloud**2)) * lung
    if "edema" in findings:
        veil = np.exp(-((np.abs(columns - 0.5) / 0.2) ** 2))
        density = density + 0.22 * veil * (lungs[0] + lungs[1])
    if "atelectasis" in findings:
        band = np.exp(-(((rows - 0.6 - 0.2 * (columns - 0.5)) / 0.014) ** 2))
        density = density + 0.3 * band * lung
    if "pneumothorax" in findings:
        outer = _soft(sign * (columns - 0.5) - 0.2 + 0.12 * rows, 0.03)
        density = density * (1 - 0.55 * outer * lung)
    return density
