"""Simple objects in several styles, with the mask of the object: samples of object datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.drawings.shapes import SHAPES, Part

Image = NDArray[np.uint8]  # (H, W, 3)
Mask = NDArray[np.uint8]  # (H, W): 0 background, then the number of the part, from 1
_Style = Callable[[Mask, np.random.Generator], NDArray[np.float64]]


def draw_object(
    name: str, style: str, generator: np.random.Generator, size: int = 64
) -> tuple[Image, Mask]:
    """One object, slightly turned, scaled and moved.

    Args:
        name: A name of ``SHAPES``.
        style: A name of ``STYLES``.
        generator: Decides pose, colours and texture.
        size: Height and width in pixels.

    Returns:
        RGB image (size, size, 3), 0 to 255, and parts (size, size): 0 for the background, then
        1 for the body and so on.
    """
    parts = _parts(SHAPES[name], generator, size)
    pixels = STYLES[style](parts, generator)
    return np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8), parts


def _parts(shape: Sequence[Part], generator: np.random.Generator, size: int) -> Mask:
    angle, scale = generator.uniform(-10, 10), generator.uniform(0.75, 0.95) * size / 100
    pose = cv2.getRotationMatrix2D((50, 50), angle, scale)
    pose[:, 2] += size / 2 - 50 + generator.uniform(-0.06, 0.06, 2) * size
    if generator.random() < 0.5:  # turned to the other side
        pose[:, 2] += 100 * pose[:, 0]
        pose[:, 0] *= -1
    canvas = np.zeros((size, size), np.uint8)
    for number, (form, values) in enumerate(shape, 1):
        points, width = _outline(form, values)
        moved = np.round(points @ pose[:, :2].T + pose[:, 2]).astype(np.int32)
        if form == "line":
            cv2.polylines(canvas, [moved], False, number, max(1, round(width * scale)))
        else:
            cv2.fillPoly(canvas, [moved], number)
    return canvas


def _outline(form: str, values: Sequence[float]) -> tuple[NDArray[np.float64], float]:
    if form == "ellipse":
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        x, y, across, down = values
        return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], 1), 0
    width, numbers = (values[0], values[1:]) if form == "line" else (0, values)
    return np.asarray(numbers, np.float64).reshape(-1, 2), width


def _photo(parts: Mask, generator: np.random.Generator) -> NDArray[np.float64]:
    """Muted colours, light from one side, soft ground and sensor noise."""
    pixels = _coloured(parts, generator, saturation=0.35)
    ground = _cloud(parts.shape, generator, 4)[..., None] * 0.25
    pixels = np.where((parts == 0)[..., None], pixels + ground, pixels)
    dark, bright = generator.permutation([0.75, 1.15]).tolist()
    light = np.linspace(dark, bright, parts.shape[1])
    blurred: NDArray[np.float64] = cv2.GaussianBlur(pixels * light[None, :, None], (3, 3), 0.7)
    return blurred + generator.normal(0, 0.02, pixels.shape)


def _painting(parts: Mask, generator: np.random.Generator) -> NDArray[np.float64]:
    """Warm patches of paint over strokes that run one way."""
    strokes = generator.normal(0, 1, parts.shape)
    angle = generator.uniform(0, 180)
    turn = cv2.getRotationMatrix2D((4, 4), angle, 1)
    bar = np.zeros((9, 9))
    bar[4] = 1 / 9
    strokes = cv2.filter2D(strokes, -1, cv2.warpAffine(bar, turn, (9, 9)))
    pixels = _coloured(parts, generator, saturation=0.7)
    pixels = cv2.medianBlur((255 * pixels).astype(np.uint8), 5) / 255
    painted: NDArray[np.float64] = pixels * [1.08, 0.95, 0.75] + 0.18 * strokes[..., None]
    return painted


def _cartoon(parts: Mask, generator: np.random.Generator) -> NDArray[np.float64]:
    """Flat bright colours inside black lines, on a pale ground."""
    pixels = _coloured(parts, generator, saturation=0.95)
    pixels[parts == 0] = 1 - 0.25 * generator.random(3)
    pixels[_edges(parts, width=3)] = 0
    return pixels


def _sketch(parts: Mask, generator: np.random.Generator) -> NDArray[np.float64]:
    """Thin grey lines on white paper."""
    pixels = np.ones((*parts.shape, 3))
    pixels[_edges(parts, width=1)] = generator.uniform(0.05, 0.25)
    return pixels


def _render(parts: Mask, generator: np.random.Generator) -> NDArray[np.float64]:
    """A model without texture, shaded from above, on plain white."""
    shade = np.linspace(1.0, 0.45, parts.shape[0])[:, None] * generator.uniform(0.7, 1.0)
    tones = np.concatenate([[1.0], generator.uniform(0.6, 1.0, 20)])
    grey = np.where(parts == 0, 1.0, tones[parts] * shade)
    return np.repeat(grey[..., None], 3, axis=2)


STYLES: dict[str, _Style] = {
    "photo": _photo,
    "painting": _painting,
    "cartoon": _cartoon,
    "sketch": _sketch,
    "render": _render,
}


def _coloured(
    parts: Mask, generator: np.random.Generator, saturation: float
) -> NDArray[np.float64]:
    """Each part in a colour of its own: (H, W, 3), 0 to 1."""
    count = 21
    hue = (generator.uniform(0, 360) + generator.uniform(-40, 40, count)) % 360
    hue[0] = (hue[0] + 180) % 360  # the ground stands out from the object
    tones = np.stack([hue, np.full(count, saturation), generator.uniform(0.45, 0.9, count)], 1)
    colours = cv2.cvtColor(tones[None].astype(np.float32), cv2.COLOR_HSV2RGB)[0]
    pixels: NDArray[np.float64] = colours[parts].astype(np.float64)
    return pixels


def _edges(parts: Mask, width: int) -> NDArray[np.bool_]:
    kernel = np.ones((2 * (width // 2) + 1,) * 2, np.uint8)
    gradient = cv2.morphologyEx(parts, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    thick: NDArray[np.bool_] = cv2.dilate((gradient > 0).astype(np.uint8), kernel) > 0
    return thick


def _cloud(
    shape: tuple[int, ...], generator: np.random.Generator, cells: int
) -> NDArray[np.float64]:
    grid = generator.uniform(-1, 1, (cells, cells))
    cloud: NDArray[np.float64] = cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return cloud
