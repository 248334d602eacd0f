"""One change of colour of random kind and strength."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import albumentations
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from domainnorm.registry import register

_BINS = 31
_Strength = Callable[[float, int], float]


def _factor(level: float, sign: int) -> float:
    return 1 + sign * 0.99 * level


# Name → what it does by a value, and that value by a level in [0, 1] and a sign.
OPERATIONS: dict[str, tuple[Callable[[Image.Image, Any], Image.Image], _Strength]] = {
    "identity": (lambda image, _: image, _factor),
    "brightness": (lambda image, value: ImageEnhance.Brightness(image).enhance(value), _factor),
    "colour": (lambda image, value: ImageEnhance.Color(image).enhance(value), _factor),
    "contrast": (lambda image, value: ImageEnhance.Contrast(image).enhance(value), _factor),
    "sharpness": (lambda image, value: ImageEnhance.Sharpness(image).enhance(value), _factor),
    "posterize": (ImageOps.posterize, lambda level, _: 8 - round(6 * level)),
    "solarize": (ImageOps.solarize, lambda level, _: 255 * (1 - level)),
    "autocontrast": (lambda image, _: ImageOps.autocontrast(image), _factor),
    "equalize": (lambda image, _: ImageOps.equalize(image), _factor),
}


@register
class TrivialAugment(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Apply one of nine colour changes at one of 31 strengths, both drawn uniformly.

    The changes: none; brightness, colour, contrast or sharpness times 0.01 to 1.99; 8 to 2 bits per
    channel; inverting values above a threshold; stretching contrast; equalizing the histogram.

    Args:
        p: Probability of the transform.

    Reference:
        Müller and Hutter, TrivialAugment, ICCV 2021, arXiv:2103.10158, alg. 1, the wide space.
        Differs: of its 14 operations the five that move pixels are left out, so that masks and
        second views stay right; name ``Affine`` beside it, which moves masks too.
    """

    def __init__(self, *, p: float = 1.0) -> None:
        super().__init__(p=p)

    def get_params(self) -> dict[str, Any]:
        """Draw operation, strength and sign."""
        return {
            "operation": self.py_random.choice(list(OPERATIONS)),
            "level": self.py_random.randrange(_BINS) / (_BINS - 1),
            "sign": self.py_random.choice([-1, 1]),
        }

    def apply(
        self, img: NDArray[np.uint8], operation: str, level: float, sign: int, **params: Any
    ) -> NDArray[np.uint8]:
        """Change one image (H, W, 3)."""
        change, strength = OPERATIONS[operation]
        return np.array(change(Image.fromarray(img), strength(level, sign)))
