"""Street scenes in perspective, painted from far to near."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from domainnorm.data.drawings import street_things as things
from domainnorm.data.drawings.canvas import NEAREST, OVERSAMPLING, Canvas, Scene

FARTHEST = 120.0
Thing = tuple[float, Callable[[], None]]


def draw_street(seed: int, height: int = 96, width: int = 192) -> Scene:
    """Draw one street.

    Args:
        seed: Seed of everything that is in it.
        height: Pixels.
        width: Pixels.
    """
    generator = np.random.default_rng(seed)
    canvas = Canvas(height * OVERSAMPLING, width * OVERSAMPLING, generator)
    _ground(canvas)
    placed = _traffic(canvas)
    for side in (-1, 1):
        placed += _buildings(canvas, side) + _roadside(canvas, side)
    for _, paint in sorted(placed, key=lambda thing: -thing[0]):
        paint()
    return canvas.scene(seed)


def _ground(canvas: Canvas) -> None:
    """Terrain, pavements and the road, in bands of depth, with its markings."""
    grass, slabs, tar = (0.36, 0.46, 0.24), (0.62, 0.59, 0.57), (0.36, 0.36, 0.38)
    grass, slabs, tar = canvas.shade(grass), canvas.shade(slabs), canvas.shade(tar, 0.05)
    edges = NEAREST * (FARTHEST / NEAREST) ** np.linspace(0, 1, 25)
    for near, far in zip(edges[-2::-1], edges[:0:-1], strict=True):
        for left, right, colour, name in (
            (-60.0, 60.0, grass, "terrain"),
            (-8.0, 8.0, slabs, "sidewalk"),
            (-4.6, 4.6, tar, "road"),
        ):
            strip = [(left, 0.0, near), (right, 0.0, near), (right, 0.0, far), (left, 0.0, far)]
            canvas.polygon(strip, canvas.shade(colour, 0.015), name)
    for start in np.arange(3.0, 70.0, 6.0):
        for x in (-0.07, -4.3, 4.2):
            end = start + (3.0 if x == -0.07 else 6.0)
            line = [(x, 0.0, start), (x + 0.14, 0.0, start), (x + 0.14, 0.0, end), (x, 0.0, end)]
            canvas.polygon(line, (0.88, 0.88, 0.85), "road")


def _buildings(canvas: Canvas, side: int) -> list[Thing]:
    """Houses along one side, with gaps, some of which have a wall."""
    placed: list[Thing] = []
    z = canvas.number(2.0, 7.0)
    while z < 100:
        length = canvas.number(9, 20)
        if canvas.chance(0.75):
            placed.append((z + 0.9 * length, partial(things.building, canvas, side, z, z + length)))
        elif canvas.chance(0.6):
            placed.append(
                (z + length, partial(things.barrier, canvas, side, z, z + length, "wall"))
            )
        z += length + canvas.number(0, 3)
    return placed


def _roadside(canvas: Canvas, side: int) -> list[Thing]:
    """What stands or walks on one pavement."""
    placed: list[Thing] = []
    for z in np.arange(canvas.number(5, 12), 70, canvas.number(9, 16)):
        x = side * canvas.number(6.6, 7.6)
        if canvas.chance(0.7):
            placed.append((z, partial(things.tree, canvas, x, float(z))))
        if canvas.chance(0.7):
            kind = ("traffic sign", "traffic light", "lamp")[int(canvas.generator.integers(3))]
            pole = partial(things.pole, canvas, side * 5.0, float(z) + 3, kind)
            placed.append((z + 3, pole))
    if canvas.chance(0.6):
        start = canvas.number(4, 20)
        fence = partial(things.barrier, canvas, side, start, start + canvas.number(8, 25), "fence")
        placed.append((start + 12, fence))
    for _ in range(int(canvas.generator.integers(1, 5))):
        x, z = side * canvas.number(5.0, 7.0), canvas.number(6, 30)
        placed.append((z, partial(things.person, canvas, x, z)))
    return placed


def _traffic(canvas: Canvas) -> list[Thing]:
    """Parked and driving vehicles."""
    placed: list[Thing] = []
    for side in (-1, 1):
        z = canvas.number(4, 9)
        while z < 60:
            if canvas.chance(0.45):
                placed.append((z, partial(things.vehicle, canvas, side * 3.5, z, "car")))
            z += canvas.number(5.5, 10)
    kinds = ["car", "car", "truck", "bus", "train", "motorcycle", "bicycle", "bicycle"]
    for lane in (-1.6, 1.6):
        z = canvas.number(8, 16)
        kind = kinds[int(canvas.generator.integers(len(kinds)))]
        if kind in ("motorcycle", "bicycle"):
            placed.append((z, partial(things.rider, canvas, lane, z, kind)))
        else:
            placed.append((z, partial(things.vehicle, canvas, lane, z + 4, kind)))
    return placed
