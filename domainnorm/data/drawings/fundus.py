"""Drawn photographs of the retina: vessels that branch from an optic disc, in a camera's circle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.drawings.files import write_image

Plane = NDArray[np.float32]
_SUPERSAMPLED = 4  # vessels of a pixel's width need finer lines than OpenCV draws


@dataclass(frozen=True)
class Camera:
    """How a camera renders the retina.

    Args:
        retina: Colour of the background, RGB, 0 to 1.
        disc: Colour of the optic disc.
        vessel: Factor that vessels darken each channel by.
        radius: Radius of the field of view as a share of the shorter side; above 0.5 the circle
            is cut off by the frame.
        zoom: Size of disc and vessels; 1 is a field of 45°.
        blur: Standard deviation of the blur as a share of the shorter side.
        noise: Standard deviation of the grain, 0 to 1.
    """

    retina: tuple[float, float, float]
    disc: tuple[float, float, float]
    vessel: tuple[float, float, float]
    radius: float
    zoom: float = 1.0
    blur: float = 0.004
    noise: float = 0.012


CAMERAS = {
    "drive": Camera((0.78, 0.42, 0.24), (0.98, 0.82, 0.55), (0.72, 0.50, 0.55), 0.47),
    "stare": Camera(
        (0.82, 0.52, 0.20), (1.0, 0.92, 0.62), (0.78, 0.62, 0.75), 0.56, 1.1, 0.008, 0.03
    ),
    "chase_db1": Camera(
        (0.52, 0.20, 0.07), (0.80, 0.52, 0.26), (0.70, 0.45, 0.60), 0.49, 1.35, 0.006
    ),
    "hrf": Camera(
        (0.68, 0.30, 0.12), (0.95, 0.75, 0.45), (0.70, 0.48, 0.55), 0.58, 1.0, 0.002, 0.006
    ),
    "zeiss": Camera((0.70, 0.36, 0.26), (0.96, 0.78, 0.60), (0.75, 0.55, 0.60), 0.47),
    "canon": Camera((0.60, 0.32, 0.10), (0.92, 0.72, 0.36), (0.72, 0.50, 0.60), 0.55, 1.0, 0.007),
    "drishti": Camera((0.62, 0.24, 0.08), (0.95, 0.62, 0.28), (0.70, 0.45, 0.55), 0.48, 1.5, 0.005),
    "rim_one": Camera((0.72, 0.34, 0.22), (0.97, 0.80, 0.62), (0.72, 0.52, 0.60), 1.0, 3.2, 0.008),
}


@dataclass(frozen=True)
class Fundus:
    """One drawn photograph.

    Shape:
        - image: (H, W, 3), RGB, uint8
        - vessels: (H, W), bool
        - disc_cup: (H, W), uint8: 0 background, 1 disc, 2 cup
        - view: (H, W), bool: inside the field of view
    """

    image: NDArray[np.uint8]
    vessels: NDArray[np.bool_]
    disc_cup: NDArray[np.uint8]
    view: NDArray[np.bool_]


def draw_fundus(
    generator: np.random.Generator, camera: Camera, size: tuple[int, int], *, right: bool = True
) -> Fundus:
    """Draw one eye.

    Args:
        generator: Source of all that differs between eyes.
        camera: How it is rendered.
        size: Height and width in pixels.
        right: Whether the optic disc is on the right of the image, as in a right eye.
    """
    height, width = size
    short = min(size)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    away = 0.0 if camera.zoom > 2 else 0.27 * short * (1 if right else -1)
    disc = np.array([height / 2 + generator.normal(0, 0.03 * short), width / 2 + away])
    radius = 0.075 * short * camera.zoom
    disc_cup = _disc_cup(generator, (rows, columns), disc, radius)
    vessels = _vessels(generator, size, disc, camera.zoom, right)
    view = np.hypot(rows - height / 2, columns - width / 2) <= camera.radius * short
    pixels = _rendered(generator, camera, (disc_cup, vessels), view)
    return Fundus(pixels, (vessels > 0.5) & view, disc_cup * view, view)


def write_vessels(
    files: Sequence[tuple[Path, Path, Path | None]],
    *,
    camera: str,
    size: tuple[int, int],
    seed: int,
) -> None:
    """Draw and write photographs with masks of their vessels and, where named, their view.

    Args:
        files: For each photograph the files of image, vessels and view; suffixes say the format.
        camera: Name in ``CAMERAS``.
        size: Height and width in pixels.
        seed: Seed of the drawings.
    """
    for position, (image, vessels, view) in enumerate(files):
        generator = np.random.default_rng([seed, position])
        drawn = draw_fundus(generator, CAMERAS[camera], size, right=position % 2 == 0)
        write_image(image, drawn.image)
        write_image(vessels, np.uint8(255) * drawn.vessels)
        if view is not None:
            write_image(view, np.uint8(255) * drawn.view)


def _disc_cup(
    generator: np.random.Generator,
    grid: tuple[Plane, Plane],
    centre: NDArray[np.float64],
    radius: float,
) -> NDArray[np.uint8]:
    rows, columns = grid
    # A disc is a little higher than wide; the cup lies in it, off its centre.
    distance = np.hypot((rows - centre[0]) / 1.08, columns - centre[1])
    shifted = np.hypot(
        rows - centre[0] - generator.normal(0, 0.08 * radius),
        columns - centre[1] - generator.normal(0, 0.08 * radius),
    )
    cup = shifted <= radius * generator.uniform(0.35, 0.7)
    disc = distance <= radius
    return np.where(disc & cup, 2, np.where(disc, 1, 0)).astype(np.uint8)


def _vessels(
    generator: np.random.Generator,
    size: tuple[int, int],
    disc: NDArray[np.float64],
    zoom: float,
    right: bool,
) -> Plane:
    """Coverage of each pixel by vessels, 0 to 1."""
    height, width = size
    canvas = np.zeros((height * _SUPERSAMPLED, width * _SUPERSAMPLED), np.uint8)
    step = 0.02 * min(size) * zoom
    inwards = np.pi if right else 0.0
    # Two arcades towards the macula, two short trunks to the other side.
    for angle, bend, wide in (
        (1.1, -0.045, 1.0),
        (-1.1, 0.045, 1.0),
        (2.3, 0.02, 0.6),
        (-2.3, -0.02, 0.6),
    ):
        trunks = [(disc, inwards + (angle if right else -angle) + generator.normal(0, 0.15), wide)]
        sign = 1 if right else -1
        while trunks:
            start, heading, width_factor = trunks.pop()
            trunks += _branch(
                generator, canvas, start, (heading, sign * bend * width_factor), step, width_factor
            )
    covered = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(covered / 255, dtype=np.float32)


def _branch(
    generator: np.random.Generator,
    canvas: NDArray[np.uint8],
    start: NDArray[np.float64],
    course: tuple[float, float],
    step: float,
    wide: float,
) -> list[tuple[NDArray[np.float64], float, float]]:
    """Draw one vessel; returns where its branches start: point, heading, width."""
    heading, bend = course
    branches: list[tuple[NDArray[np.float64], float, float]] = []
    point = start
    for _ in range(int(34 * wide) + 6):
        heading += bend + generator.normal(0, 0.09)
        following = point + step * np.array([np.sin(heading), np.cos(heading)])
        thickness = max(1, round(_SUPERSAMPLED * 0.9 * step * wide))
        ends = [tuple(int(v) for v in _SUPERSAMPLED * end[::-1]) for end in (point, following)]
        cv2.line(canvas, ends[0], ends[1], 255, thickness, cv2.LINE_AA)
        point = following
        if wide > 0.35 and generator.random() < 0.10:
            side = generator.choice([-1.0, 1.0])
            branches.append((point, heading + side * generator.uniform(0.5, 1.0), 0.62 * wide))
    return branches


def _rendered(
    generator: np.random.Generator,
    camera: Camera,
    drawn: tuple[NDArray[np.uint8], Plane],
    view: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    disc_cup, vessels = drawn
    height, width = disc_cup.shape
    short = min(height, width)
    mottled = cv2.GaussianBlur(
        generator.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 0.05 * short
    )
    light = 1 + 0.10 * mottled / mottled.std()
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    macula = np.hypot(rows - height / 2, columns - width / 2) / (0.11 * short * camera.zoom)
    if camera.zoom <= 2:  # a picture of the disc alone does not show the macula
        light = light * (1 - 0.35 * np.exp(-(macula**2)))
    pixels = light[..., None] * np.array(camera.retina, np.float32)
    glow = cv2.GaussianBlur((disc_cup > 0).astype(np.float32), (0, 0), 0.012 * short)[..., None]
    disc = np.array(camera.disc, np.float32)
    pixels = pixels * (1 - glow) + glow * (0.86 * disc)
    pale = cv2.GaussianBlur((disc_cup == 2).astype(np.float32), (0, 0), 0.012 * short)[..., None]
    pixels = pixels * (1 - 0.8 * pale) + 0.8 * pale * np.minimum(disc * 1.2, 1)
    pixels = pixels * (1 - vessels[..., None] * (1 - np.array(camera.vessel, np.float32)))
    pixels = cv2.GaussianBlur(pixels, (0, 0), max(camera.blur * short, 0.3))
    pixels = pixels * generator.uniform(0.9, 1.1) + generator.normal(0, camera.noise, pixels.shape)
    return np.asarray(255 * np.clip(pixels * view[..., None], 0, 1), dtype=np.uint8)


def write_disc_cups(
    files: Sequence[tuple[Path, dict[Path, tuple[int, int, int]]]],
    *,
    camera: str,
    size: tuple[int, int],
    seed: int,
) -> None:
    """Draw and write photographs with masks of optic disc and cup.

    Args:
        files: For each photograph its file, and for each of its masks the grey values that
            background, disc and cup have there.
        camera: Name in ``CAMERAS``.
        size: Height and width in pixels.
        seed: Seed of the drawings; it should differ between cameras.
    """
    for position, (image, masks) in enumerate(files):
        generator = np.random.default_rng([seed, position])
        drawn = draw_fundus(generator, CAMERAS[camera], size, right=position % 2 == 0)
        write_image(image, drawn.image)
        for mask, greys in masks.items():
            write_image(mask, np.array(greys, np.uint8)[drawn.disc_cup])
