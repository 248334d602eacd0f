"""From an image of any size to what a backbone was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainnorm.errors import DataError

Interpolation = Literal["bilinear", "bicubic", "nearest", "area", "lanczos"]
_FLAGS: dict[Interpolation, int] = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


@dataclass(frozen=True)
class Preprocessing:
    """Resize so that the image covers the input, cut its centre, normalize each channel.

    ``y = (x / 255 − mean) / std``. timm's ``crop_pct`` is not applied: the shorter side becomes
    the input size exactly, because medical images keep what lies at their border. Images that
    shrink are averaged over areas unless ``nearest`` is asked for, since OpenCV's other kernels
    do not widen when they shrink an image, and alias; ``interpolation`` is how images grow.

    Args:
        height: Height of the input in pixels.
        width: Width of the input in pixels.
        mean: Mean of each channel (R, G, B), on a scale from 0 to 1.
        std: Standard deviation of each channel, on the same scale, positive.
        interpolation: Kernel of the resizing.

    Shape:
        - image: (h, w, 3), 0 to 255
        - output: (3, H, W), float32

    Raises:
        DataError: A size or a standard deviation is not positive.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise DataError(
                f"data.image_size: {self.height} × {self.width} pixels, expected positive numbers"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise DataError(
                f"preprocessing: mean {self.mean} and std {self.std}, expected three numbers each, "
                "one per RGB channel, std positive"
            )

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], image_size: int | Sequence[int] | None = None
    ) -> Preprocessing:
        """Preprocessing of a backbone.

        Args:
            config: timm's data config with keys input_size (C, H, W), mean, std, interpolation.
                An interpolation that is not one of ours (timm's ``random``) becomes bilinear.
            image_size: Side of a square in pixels or [height, width]; the backbone's when None.

        Raises:
            DataError: The size is not one or two positive integers.
        """
        match image_size:
            case None:
                height, width = config["input_size"][1:]
            case int(side):
                height = width = side
            case [int(height), int(width)]:
                pass
            case _:
                raise DataError(
                    f"data.image_size: {image_size!r}, expected pixels or [height, width]"
                )
        kernel = config.get("interpolation", "bilinear")
        return cls(
            height,
            width,
            tuple(config["mean"]),
            tuple(config["std"]),
            kernel if kernel in get_args(Interpolation) else "bilinear",
        )

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """Turn (h, w, 3) pixels into a normalized (3, H, W) tensor."""
        covered = self._cropped(self._covering(image))
        scaled = covered.astype(np.float32) / np.float32(255)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        normalized = (scaled - mean) / std
        return torch.from_numpy(np.ascontiguousarray(normalized.transpose(2, 0, 1)))

    def _covering(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        factor = max(self.height / height, self.width / width)
        # Rounding alone could fall one pixel short of the input.
        size = (
            max(self.width, round(width * factor)),
            max(self.height, round(height * factor)),
        )
        if size == (width, height):
            return image
        shrinks = factor < 1 and self.interpolation != "nearest"
        flag = cv2.INTER_AREA if shrinks else _FLAGS[self.interpolation]
        return np.asarray(cv2.resize(image, size, interpolation=flag), dtype=np.uint8)

    def _cropped(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        top = (image.shape[0] - self.height) // 2
        left = (image.shape[1] - self.width) // 2
        return image[top : top + self.height, left : left + self.width]
