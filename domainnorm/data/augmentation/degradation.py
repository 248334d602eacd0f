"""Images made worse on purpose, for networks that learn to restore them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Degradation:
    """What takes detail from an image: fewer pixels, noise, compression; as large as before.

    Pixels get fewer, and as many as before again, by bicubic interpolation, widened where the image
    shrinks so that nothing aliases, as Pillow does it. Values stay in the range that a file can
    hold. Noise comes last, but where images are compressed: then it comes before that, while they
    are small, as in a camera.

    Args:
        scale: By how much height and width shrink, 1 or more; 1 leaves them. A side that it does
            not divide is rounded up.
        noise: Standard deviation of Gaussian noise that is added to each value, black being 0 and
            white 1.
        jpeg: Quality of the JPEG file that the image goes through, 1 to 100, or the lowest and the
            highest of those that are drawn; None for none.
    """

    scale: int = 1
    noise: float = 0.0
    jpeg: int | Sequence[int] | None = None

    def __call__(self, image: Tensor, seed: Sequence[int]) -> Tensor:
        """A worse image of the same size.

        Args:
            image: (C, H, W), 0 to 1.
            seed: Of noise and quality, non-negative numbers.
        """
        worse, size = image, image.shape[-2:]
        drawn = np.random.default_rng(seed)
        if self.scale > 1:
            worse = bicubic(image, [-(-side // self.scale) for side in size])
        if self.jpeg is not None:
            worst, best = (self.jpeg, self.jpeg) if isinstance(self.jpeg, int) else self.jpeg
            worse = self._noisy(worse, drawn).clamp(0, 1)
            worse = _compressed(worse, int(drawn.integers(worst, best + 1)))
        if self.scale > 1:
            worse = bicubic(worse, size)
        return (worse if self.jpeg is not None else self._noisy(worse, drawn)).clamp(0, 1)

    def _noisy(self, image: Tensor, drawn: np.random.Generator) -> Tensor:
        if not self.noise:
            return image
        noise = drawn.standard_normal(tuple(image.shape), np.float32)
        return image + self.noise * torch.from_numpy(noise)


def _compressed(image: Tensor, quality: int) -> Tensor:
    """An image (C, H, W), 0 to 1, with colours or grey, as it comes out of a JPEG file."""
    pixels = (255 * image).round().byte().movedim(0, 2).numpy()
    colour = pixels.shape[2] == 3
    order = slice(None, None, -1) if colour else slice(None)  # OpenCV has blue first
    flag = cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE
    quality_of_file = [cv2.IMWRITE_JPEG_QUALITY, quality]
    data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., order]), quality_of_file)[1]
    read = np.asarray(cv2.imdecode(data, flag), np.uint8).reshape(pixels.shape)[..., order].copy()
    return torch.from_numpy(read).movedim(2, 0).float() / 255


def bicubic(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image (C, H, W) of another height and width, as Pillow resizes it, not clipped."""
    return F.interpolate(image[None], list(size), mode="bicubic", antialias=True)[0]
