"""Photographs of a drawn street: light, weather and the camera that took them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.drawings.canvas import NUMBER, Scene

Pixels = NDArray[np.float32]
CONDITIONS = ("day", "dusk", "night", "fog", "rain", "snow")
GROUND = (NUMBER["road"], NUMBER["sidewalk"], NUMBER["terrain"])


@dataclass(frozen=True)
class Look:
    """What a camera, or a renderer, makes of the same light.

    Args:
        tint: Gain of red, green and blue.
        saturation: 1 leaves colours as they are.
        contrast: 1 leaves differences from mid grey as they are.
        noise: Standard deviation of the noise of a pixel, 0 to 1.
    """

    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    contrast: float = 1.0
    noise: float = 0.02


LOOKS = {
    "camera": Look((0.88, 0.98, 0.90), 0.65, 0.85, 0.02),
    "game": Look((1.08, 1.0, 0.86), 1.45, 1.2, 0.004),
    "render": Look((1.0, 1.0, 1.06), 1.8, 1.05, 0.0),
    "dashcam": Look((0.96, 1.0, 1.08), 0.9, 1.1, 0.035),
}


def photograph(
    scene: Scene, condition: str, look: str = "camera", density: float = 0.03
) -> NDArray[np.uint8]:
    """Pixels of a scene: (H, W, 3), RGB, 0 to 255.

    Args:
        scene: The street.
        condition: One of ``CONDITIONS``.
        look: One of ``LOOKS``.
        density: Of fog: the share of light that is lost on a metre.
    """
    generator = np.random.default_rng((scene.seed, CONDITIONS.index(condition)))
    camera = LOOKS[look]
    if condition == "fog":
        pixels = _fog(scene, density)
    else:
        pixels = _CONDITIONS[condition](scene, generator)
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = (grey + camera.saturation * (pixels - grey)) * np.asarray(camera.tint)
    pixels = 0.5 + camera.contrast * (pixels - 0.5)
    pixels = pixels + camera.noise * generator.standard_normal(pixels.shape)
    return np.asarray(np.round(255 * np.clip(pixels, 0, 1)), dtype=np.uint8)


def _day(scene: Scene, generator: np.random.Generator) -> Pixels:
    return np.asarray(scene.colour * generator.uniform(0.9, 1.05), np.float32)


def _dusk(scene: Scene, generator: np.random.Generator) -> Pixels:
    """A low sun: warm sky near the horizon, blue and dim below, first lamps."""
    warm = np.array([1.0, 0.62, 0.42], np.float32)
    glow = np.linspace(0.1, 1.0, len(scene.mask), dtype=np.float32)[:, None, None]
    sky = scene.colour * ((1 - glow) * 0.45 + glow * warm)
    ground = scene.colour * np.array([0.46, 0.40, 0.44], np.float32)
    lit = np.where(_is(scene, "sky"), sky, ground)
    return _glowing(scene, lit.astype(np.float32), 0.6)


def _night(scene: Scene, generator: np.random.Generator) -> Pixels:
    """Lamps, windows, and headlights that fade with distance."""
    reach = np.exp(-scene.depth / 14)[..., None] * np.array([1.0, 0.92, 0.75], np.float32)
    ambient = np.array([0.07, 0.08, 0.13], np.float32)
    lit = np.asarray(scene.colour * (ambient + 0.75 * reach), np.float32)
    return _glowing(scene, lit, 1.0)


def _fog(scene: Scene, density: float) -> Pixels:
    """The law of Koschmieder: what is far takes the colour of the air."""
    kept = np.exp(-density * scene.depth)[..., None]
    air = np.array([0.78, 0.80, 0.82], np.float32)
    return np.asarray(kept * scene.colour + (1 - kept) * air, np.float32)


def _rain(scene: Scene, generator: np.random.Generator) -> Pixels:
    """Overcast, a wet road that mirrors what is above it, and streaks."""
    grey = scene.colour.mean(axis=2, keepdims=True)
    sky = np.full_like(scene.colour, 0.66)
    pixels = np.where(_is(scene, "sky"), sky, 0.62 * (0.5 * scene.colour + 0.5 * grey))
    horizon = int(np.argmax(np.isin(scene.mask, GROUND).any(axis=1)))
    mirrored = pixels.copy()
    below = len(pixels) - horizon
    reflection = cv2.resize(pixels[:horizon][::-1], (pixels.shape[1], below))
    mirrored[horizon:] = cv2.blur(reflection, (5, 9))
    wet = np.where(_is(scene, "road"), 0.6 * pixels + 0.4 * mirrored, pixels).astype(np.float32)
    return _streaked(_glowing(scene, wet, 0.5), generator, length=9, amount=0.004)


def _snow(scene: Scene, generator: np.random.Generator) -> Pixels:
    """White ground with darker tracks, grey air and flakes."""
    white = np.array([0.90, 0.91, 0.94], np.float32)
    cover = np.where(_is(scene, "road"), 0.55, 0.88) * np.isin(scene.mask, GROUND)[..., None]
    cover = np.where(_is(scene, "vegetation"), 0.45, cover)
    pixels = 0.85 * ((1 - cover) * scene.colour + cover * white)
    kept = np.exp(-0.012 * scene.depth)[..., None]
    hazy = (kept * pixels + (1 - kept) * 0.80).astype(np.float32)
    return _streaked(hazy, generator, length=2, amount=0.012)


_CONDITIONS: dict[str, Callable[[Scene, np.random.Generator], Pixels]] = {
    "day": _day,
    "dusk": _dusk,
    "night": _night,
    "rain": _rain,
    "snow": _snow,
}


def _is(scene: Scene, name: str) -> NDArray[np.bool_]:
    return np.asarray(scene.mask == NUMBER[name])[..., None]


def _glowing(scene: Scene, pixels: Pixels, strength: float) -> Pixels:
    """Add what glows by itself, and its halo."""
    lamp = np.array([1.0, 0.86, 0.58], np.float32) * scene.light[..., None]
    halo = cv2.GaussianBlur(lamp, (0, 0), 4) + 0.5 * cv2.GaussianBlur(lamp, (0, 0), 10)
    own = np.minimum(scene.colour + 0.3, 1) * scene.light[..., None]
    return np.asarray(pixels + strength * (0.8 * own + 0.5 * halo + 0.3 * lamp), np.float32)


def _streaked(pixels: Pixels, generator: np.random.Generator, length: int, amount: float) -> Pixels:
    """Drops or flakes that passed during the exposure."""
    drops = (generator.random(pixels.shape[:2]) < amount).astype(np.float32)
    kernel = np.zeros((length, max(length // 2, 2)), np.float32)
    cv2.line(kernel, (kernel.shape[1] - 1, 0), (0, length - 1), 1.0)
    veil = np.clip(cv2.filter2D(drops, -1, kernel), 0, 1)[..., None]
    return np.asarray(pixels + 0.3 * veil * (1 - pixels), np.float32)
