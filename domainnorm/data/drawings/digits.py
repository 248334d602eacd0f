"""Digits as OpenCV writes them, slightly different each time: samples of sets of digits."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX)


def draw_ink(digit: int, generator: np.random.Generator, size: int) -> NDArray[np.float64]:
    """One digit, light on dark: (size, size), 0 to 1."""
    canvas = np.zeros((64, 64), np.uint8)
    font = _FONTS[generator.integers(len(_FONTS))]
    width = int(generator.integers(4, 8))
    (across, down), _ = cv2.getTextSize(str(digit), font, 1.9, width)
    cv2.putText(canvas, str(digit), (32 - across // 2, 32 + down // 2), font, 1.9, 255, width)
    turn = cv2.getRotationMatrix2D((32, 32), generator.uniform(-12, 12), generator.uniform(0.8, 1))
    turn[:, 2] += generator.uniform(-3, 3, 2)
    moved = cv2.warpAffine(canvas, turn, (64, 64))
    ink: NDArray[np.float64] = cv2.resize(moved, (size, size), interpolation=cv2.INTER_AREA) / 255
    return ink


def draw_grey(digit: int, generator: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A scan: white ink on black, (size, size)."""
    return _quantized(draw_ink(digit, generator, size))


def draw_street(digit: int, generator: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A number plate: one colour on another, with neighbours cut off, (size, size, 3)."""
    ink = draw_ink(digit, generator, size)
    for side in (-0.7, 0.7):
        neighbour = draw_ink(int(generator.integers(10)), generator, size)
        shift = np.array([[1, 0, side * size], [0, 1, 0]])
        ink = np.maximum(ink, cv2.warpAffine(neighbour, shift, (size, size)))
    paper, paint = generator.uniform(0, 0.45, 3), generator.uniform(0.55, 1, 3)
    if generator.random() < 0.5:
        paper, paint = paint, paper
    scene = paper + ink[..., None] * (paint - paper)
    noise = generator.normal(0, 0.03, scene.shape)
    return _quantized(cv2.GaussianBlur(scene, (3, 3), 0.8) + noise)


def draw_blended(digit: int, generator: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """MNIST-M: the difference between a texture and the ink, (size, size, 3)."""
    texture = cv2.resize(generator.random((7, 7, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    return _quantized(np.abs(texture - draw_ink(digit, generator, size)[..., None]))


def _quantized(scene: NDArray[np.float64]) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.round(255 * np.clip(scene, 0, 1)).astype(np.uint8)
    return pixels
