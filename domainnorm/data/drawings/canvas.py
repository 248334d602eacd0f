"""A street seen by a pinhole camera: layers that are painted polygon by polygon, in metres.

x is to the right, y up and z ahead; the camera is 1.5 m above the road. Every polygon goes into
colour, class, depth and light at once, so that masks are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.datasets.label_sets import CITYSCAPES19

CAMERA_HEIGHT = 1.5
NEAREST = 2.0  # metres; what is nearer is behind the windscreen
OVERSAMPLING = 4
NUMBER = {name: number for number, name in enumerate(CITYSCAPES19.names)}

Point = tuple[float, float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """One street.

    Args:
        colour: Colours in even light, (H, W, 3), 0 to 1.
        mask: Classes of ``cityscapes19``, (H, W).
        depth: Distance in metres, (H, W).
        light: How much a pixel glows by itself at night, (H, W), 0 to 1.
        seed: Seed of what a photograph adds, such as noise and rain.
    """

    colour: NDArray[np.float32]
    mask: NDArray[np.uint8]
    depth: NDArray[np.float32]
    light: NDArray[np.float32]
    seed: int


class Canvas:
    """The layers of a scene while it is painted, four times as large as it will be.

    Args:
        height: Pixels of the layers.
        width: Pixels of the layers.
        generator: Source of all randomness.
    """

    def __init__(self, height: int, width: int, generator: np.random.Generator) -> None:
        self.generator = generator
        self.focal = 0.62 * width
        self.centre = width * generator.uniform(0.44, 0.56)
        self.horizon = height * generator.uniform(0.42, 0.50)
        self.colour = np.zeros((height, width, 3), np.float32)
        self.mask = np.full((height, width), NUMBER["sky"], np.uint8)
        self.depth = np.full((height, width), 1000.0, np.float32)
        self.light = np.zeros((height, width), np.float32)
        rise = np.clip(np.arange(height) / self.horizon, 0, 1)[:, None, None]
        zenith, haze = np.array([0.42, 0.62, 0.90]), np.array([0.80, 0.87, 0.94])
        self.colour[:] = (1 - rise) * zenith + rise * haze

    def number(self, low: float, high: float) -> float:
        """A uniform number."""
        return float(self.generator.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Whether something happens."""
        return bool(self.generator.random() < probability)

    def shade(self, colour: Colour, spread: float = 0.08) -> Colour:
        """A colour near another."""
        red, green, blue = np.clip(colour + self.generator.uniform(-spread, spread, 3), 0, 1)
        return float(red), float(green), float(blue)

    def project(self, points: Sequence[Point]) -> NDArray[np.int32]:
        """Pixels (N, 2) of points."""
        x, y, z = np.asarray(points, dtype=np.float64).T
        z = np.maximum(z, NEAREST)
        u = self.centre + self.focal * x / z
        v = self.horizon + self.focal * (CAMERA_HEIGHT - y) / z
        pixels = np.clip(np.stack([u, v], axis=1), -20000, 20000)
        return np.asarray(pixels.round(), dtype=np.int32)

    def polygon(
        self, points: Sequence[Point], colour: Colour, name: str, light: float = 0.0
    ) -> None:
        """Fill a flat outline.

        Args:
            points: Its corners in metres.
            colour: In even light, 0 to 1.
            name: Class of ``cityscapes19``.
            light: How much it glows by itself at night, 0 to 1.
        """
        corners = self.project(points)
        depth = float(np.mean([point[2] for point in points]))
        cv2.fillPoly(self.colour, [corners], colour)
        cv2.fillPoly(self.mask, [corners], NUMBER[name])
        cv2.fillPoly(self.depth, [corners], depth)
        cv2.fillPoly(self.light, [corners], light)

    def disc(
        self, centre: Point, radii: tuple[float, float], colour: Colour, name: str, light: float = 0
    ) -> None:
        """An ellipse that faces the camera."""
        x, y, z = centre
        turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        points = [(x + radii[0] * np.cos(t), y + radii[1] * np.sin(t), z) for t in turns]
        self.polygon(points, colour, name, light)

    def upright(self, left: float, right: float, low: float, high: float, z: float) -> list[Point]:
        """A rectangle that faces the camera."""
        return [(left, low, z), (right, low, z), (right, high, z), (left, high, z)]

    def scene(self, seed: int) -> Scene:
        """What was painted, in its final size."""
        size = (self.mask.shape[1] // OVERSAMPLING, self.mask.shape[0] // OVERSAMPLING)
        centre = OVERSAMPLING // 2
        pick = (slice(centre, None, OVERSAMPLING), slice(centre, None, OVERSAMPLING))
        return Scene(
            cv2.resize(self.colour, size, interpolation=cv2.INTER_AREA),
            self.mask[pick].copy(),
            self.depth[pick].copy(),
            cv2.resize(self.light, size, interpolation=cv2.INTER_AREA),
            seed,
        )
