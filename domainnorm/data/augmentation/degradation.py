"""Images made worse on purpose, for networks that learn to restore them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Degradation:
    """What takes detail from an image: fewer pixels, enlarged again to as many, and noise.

    Both ways are bicubic, widened where the image shrinks so that nothing aliases, as Pillow does
    it. Values stay in the range that a file can hold.

    Args:
        scale: By how much height and width shrink, 1 or more; 1 leaves them. A side that it does
            not divide is rounded up.
        noise: Standard deviation of Gaussian noise that is added to each value, black being 0 and
            white 1.
    """

    scale: int = 1
    noise: float = 0.0

    def __call__(self, image: Tensor, seed: Sequence[int]) -> Tensor:
        """A worse image of the same size.

        Args:
            image: (C, H, W), 0 to 1.
            seed: Of the noise, non-negative numbers.
        """
        worse = image
        if self.scale > 1:
            size = image.shape[-2:]
            small = [-(-side // self.scale) for side in size]
            worse = bicubic(bicubic(image, small), size)
        if self.noise:
            drawn = np.random.default_rng(seed).standard_normal(tuple(image.shape), np.float32)
            worse = worse + self.noise * torch.from_numpy(drawn)
        return worse.clamp(0, 1)


def bicubic(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image (C, H, W) of another height and width, as Pillow resizes it, not clipped."""
    return F.interpolate(image[None], list(size), mode="bicubic", antialias=True)[0]
