"""Colours of the training images, and images in colours drawn from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.registry import register

_Numbers = NDArray[np.float64]
_DEGREES = 360.0
# Space → conversion there and back, the greatest value of channels that start at 0 (None: no
# bounds, or a circle), and which of them is an angle.
_SPACES: dict[str, tuple[int, int, tuple[float | None, ...], int | None]] = {
    "lab": (cv2.COLOR_RGB2LAB, cv2.COLOR_LAB2RGB, (100.0, None, None), None),
    "hsv": (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB, (None, 1.0, 1.0), 0),
}


class ColourStatistics(NamedTuple):
    """How the moments of channels differ between images, in one colour space.

    Args:
        centre: Average over images of the means, and of the standard deviations, of their pixels in
            each channel, (2, 3).
        spread: Standard deviation of these over images, (2, 3).
        least: Smallest standard deviation of a channel in any image, (3,).
    """

    centre: _Numbers
    spread: _Numbers
    least: _Numbers


Colours = Mapping[str, ColourStatistics]


def colours_of(images: Iterable[NDArray[np.uint8]]) -> dict[str, ColourStatistics]:
    """Statistics of some images (h, w, 3), at least one, in each colour space by its name."""
    moments: dict[str, list[_Numbers]] = {space: [] for space in _SPACES}
    for image in images:
        for space, found in moments.items():
            found.append(np.stack(_moments(_converted(image, space), space)))
    statistics = {}
    for space, found in moments.items():
        means, deviations = np.stack(found, axis=1)  # (images, 3) each
        over = [_moments(means, space), (deviations.mean(0), deviations.std(0))]
        centre, spread = (np.stack(parts) for parts in zip(*over, strict=True))
        statistics[space] = ColourStatistics(centre, spread, deviations.min(0))
    return statistics


def recoloured(
    image: NDArray[np.uint8], space: str, mean: _Numbers, deviation: _Numbers
) -> NDArray[np.uint8]:
    """An image (H, W, 3) whose channels in a colour space have this mean and deviation, (3,) each.

    ``x' = (x - mean(x)) / std(x) · deviation + mean``; values that no colour has are cut, hues go
    around. A channel of one value becomes the mean.
    """
    _, back, bounds, angle = _SPACES[space]
    values = _converted(image, space)
    own_mean, own_deviation = _moments(values, space)
    factor = np.divide(deviation, own_deviation, out=np.ones(3), where=own_deviation > 1e-6)
    values = _apart(values, own_mean, angle) * factor + mean
    for channel, most in enumerate(bounds):
        if channel == angle:
            values[..., channel] %= _DEGREES
        elif most is not None:
            values[..., channel] = values[..., channel].clip(0, most)
    done = cv2.cvtColor(values.astype(np.float32), back)
    pixels: _Numbers = np.clip(np.round(done * 255), 0, 255)
    return pixels.astype(np.uint8)


def _converted(image: NDArray[np.uint8], space: str) -> _Numbers:
    converted = cv2.cvtColor(image.astype(np.float32) / 255, _SPACES[space][0])
    return np.asarray(converted, dtype=np.float64)


def _moments(values: _Numbers, space: str) -> tuple[_Numbers, _Numbers]:
    """Mean and standard deviation of channels (..., 3), of hues on their circle: (3,) each."""
    angle = _SPACES[space][3]
    rows = values.reshape(-1, 3)
    mean = rows.mean(0)
    if angle is not None:
        turned = np.exp(2j * np.pi * rows[:, angle] / _DEGREES).mean()
        mean[angle] = np.angle(turned, deg=True) % _DEGREES
    return mean, np.sqrt(np.square(_apart(rows, mean, angle)).mean(0))


def _apart(values: _Numbers, mean: _Numbers, angle: int | None) -> _Numbers:
    """Deviations from a mean, those of an angle the shorter way around: (..., 3)."""
    apart = values - mean
    if angle is not None:
        half = _DEGREES / 2
        apart[..., angle] = (apart[..., angle] + half) % _DEGREES - half
    return apart


@register
class RandStainNA(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Recolour an image with channel means and deviations drawn from those of training images.

    The step chooses a colour space at random. For each channel it draws a mean and a standard
    deviation from normal distributions. These have the average and the spread, times ``spread``, of
    the training images that a method may see. Then see `recoloured`.

    Args:
        spaces: Colour spaces to choose from, ``lab`` and ``hsv``.
        spread: Factor of the spread of the draws; 1 is the spread of the training images.
        p: Probability of the transform.

    Reference:
        Shen et al., RandStainNA, MICCAI 2022, arXiv:2206.12694, sec. 2; ``spread`` is ``1 +
        std_hyper``, and -0.3 the value of the authors' examples.
        Differs: no HED space; a deviation is at least the smallest of the training images, where a
        negative draw would turn the channel around; the mean hue of reds is red, because hues are
        on a circle; at most 1000 images are measured.
    """

    def __init__(
        self,
        *,
        spaces: list[str] = ["lab", "hsv"],  # noqa: B006
        spread: float = 0.7,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        if not spaces or set(spaces) - set(_SPACES):
            raise ValueError(f"spaces: {spaces}, expected some of {', '.join(_SPACES)}")
        if not spread >= 0:
            raise ValueError(f"spread: {spread}, expected 0 or more")
        self.spaces = list(spaces)
        self.spread = spread

    @property
    def targets_as_params(self) -> list[str]:
        """What a call must bring beside the image."""
        return ["colours"]

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw a space, and mean and deviation of each channel."""
        space = self.py_random.choice(self.spaces)
        statistics: ColourStatistics = data["colours"][space]
        drawn = self.random_generator.normal(statistics.centre, self.spread * statistics.spread)
        return {
            "space": space,
            "mean": drawn[0],
            "deviation": np.maximum(drawn[1], statistics.least),
        }

    def apply(
        self,
        img: NDArray[np.uint8],
        space: str,
        mean: _Numbers,
        deviation: _Numbers,
        **params: Any,
    ) -> NDArray[np.uint8]:
        """Recolour one image (H, W, 3)."""
        return recoloured(img, space, mean, deviation)
