"""Preprocessing of an image of any size to what a backbone was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from domainnorm.data.dataset import UNLABELLED
from domainnorm.data.masks import VOID
from domainnorm.errors import DataError

Fit = Literal["cover", "pad", "stretch"]
Pixels = NDArray[np.uint8]
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
    """Fit an image, and its mask, to the input of a network, and normalize each channel.

    ``y = (x / 255 − mean) / std``. timm's ``crop_pct`` is not applied: the shorter side becomes
    the input size exactly, because medical images keep what lies at their border. Images that
    shrink are averaged over areas unless ``nearest`` is asked for, since OpenCV's other kernels
    do not widen when they shrink an image, and alias; ``interpolation`` is how images grow. Masks
    take the nearest pixel. A network of one channel gets the brightness of the colours.

    Args:
        height: Height of the input in pixels.
        width: Width of the input in pixels.
        mean: Mean of each channel (R, G, B), on a scale from 0 to 1; one number for grey.
        std: Standard deviation of each channel, on the same scale, positive.
        interpolation: Kernel of the resizing.
        fit: ``cover``: the image covers the input, what is over is cut off around its centre.
            ``pad``: all of the image is inside, around it are pixels of the colour ``mean``,
            void in masks. ``stretch``: both sides are resized on their own.
        crop: Height and width of random crops, taken from the image at its size in the input; None
            for the whole. A crop that is larger than the image is padded.

    Shape:
        - image: (h, w, 3), 0 to 255; mask: (h, w), classes or 255
        - output: (3, H, W), float32, (1, H, W) in grey; mask: (H, W), int64, classes or -1

    Raises:
        DataError: A size or a standard deviation is not positive, or a crop exceeds the input.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    fit: Fit = "cover"
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise DataError(
                f"data.image_size: {self.height} × {self.width} pixels, expected positive numbers"
            )
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or min(self.std) <= 0:
            raise DataError(
                f"preprocessing: mean {self.mean} and std {self.std}, expected three numbers each, "
                "one per RGB channel, or one each for grey images, std positive"
            )
        if self.crop and (
            min(self.crop) < 1 or self.crop[0] > self.height or self.crop[1] > self.width
        ):
            raise DataError(
                f"data.crop_size: {self.crop[0]} × {self.crop[1]} pixels, expected positive "
                f"numbers that the input of {self.height} × {self.width} holds"
            )

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        image_size: int | Sequence[int] | None = None,
        *,
        crop_size: int | Sequence[int] | None = None,
        fit: Fit = "cover",
    ) -> Preprocessing:
        """Preprocessing of a backbone.

        Args:
            config: timm's data config with keys input_size (C, H, W), mean, std, interpolation.
                An interpolation that is not one of ours (timm's ``random``) becomes bilinear.
            image_size: Side of a square in pixels or [height, width]; the backbone's when None.
            crop_size: Of training crops, like ``image_size``; None for none.
            fit: See the class.

        Raises:
            DataError: A size is not one or two positive integers.
        """
        height, width = _sides("data.image_size", image_size) or config["input_size"][1:]
        kernel = config.get("interpolation", "bilinear")
        return cls(
            height,
            width,
            tuple(config["mean"]),
            tuple(config["std"]),
            kernel if kernel in get_args(Interpolation) else "bilinear",
            fit,
            _sides("data.crop_size", crop_size),
        )

    def whole(self) -> Preprocessing:
        """The same without random crops, for evaluation."""
        return replace(self, crop=None)

    def __call__(self, image: Pixels) -> Tensor:
        """Turn (h, w, 3) pixels into a normalized tensor, (3, H, W) or (1, H, W)."""
        return self.pair(image, None)[0]

    def pair(
        self, image: Pixels, mask: Pixels | None, seed: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Turn pixels, and the classes of the same pixels, into tensors.

        Args:
            image: (h, w, 3).
            mask: (h, w), or None.
            seed: Of the place of the crop.

        Returns:
            (3, H, W) or (1, H, W) normalized, and (H, W) classes with -1 for none, or None.
        """
        sized = self.resized(image, is_mask=False)
        window = self._window(sized, seed)
        shown = _cut(sized, window, self._colour)
        if len(self.mean) == 1:
            shown = np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
        pixels = shown.astype(np.float32) / np.float32(255)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        normalized = np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))
        if mask is None:
            return torch.from_numpy(normalized), None
        classes = _cut(self.resized(mask, is_mask=True), window, [VOID])
        labels = np.where(classes == VOID, UNLABELLED, classes.astype(np.int64))
        return torch.from_numpy(normalized), torch.from_numpy(labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        return self.crop or (self.height, self.width)

    def fitted(self, image: Pixels, *, is_mask: bool = False) -> Pixels:
        """The pixels at the size and in the frame of the input, for figures: (H, W, 3)."""
        sized = self.resized(image, is_mask=is_mask)
        return _cut(sized, self.whole()._window(sized, 0), [VOID] if is_mask else self._colour)

    @property
    def _colour(self) -> list[int]:
        """What is around an image: the mean, as R, G, B."""
        return [round(255 * part) for part in self.mean] * (3 // len(self.mean))

    def restored(self, values: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Values of the input at the pixels of the image that it was made of.

        Args:
            values: What a network says of the whole input, (K, H, W); between its pixels it is
                interpolated linearly.
            height: Of the image, h.
            width: Of the image, w.

        Returns:
            (K, h, w), and whether each pixel of the image was in the input, (h, w); those that
            were cut off have the value of the nearest that was not.
        """
        # Under autocast in a narrow type: places in it would be off by pixels, or outside.
        values = values if values.dtype == torch.float64 else values.float()
        sized_width, sized_height = self._sized(height, width)
        places, inside = [], []
        for side, sized, whole in (
            (height, sized_height, self.height),
            (width, sized_width, self.width),
        ):
            centre = (torch.arange(side, device=values.device) + 0.5) * (sized / side)
            place = centre - (sized - whole) // 2
            places.append(2 * place / whole - 1)
            inside.append((place > -1e-3) & (place < whole + 1e-3))
        grid = torch.stack(torch.meshgrid(places[1], places[0], indexing="xy"), -1)
        with torch.autocast(values.device.type, enabled=False):
            sampled = F.grid_sample(
                values[None], grid[None].to(values), padding_mode="border", align_corners=False
            )
        return sampled[0], inside[0][:, None] & inside[1]

    def with_mask(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the input (K, H, W) and the mask of the image, uint8 (h, w), to be compared.

        Returns:
            (K, h, w), and classes (h, w), int64, with −1 for none.

        Raises:
            DataError: A part of the image was cut off.
        """
        height, width = mask.shape
        found, inside = self.restored(values, height, width)
        if not bool(inside.all()):
            raise DataError(
                "evaluation.mask_size: original needs predictions of whole images, but data.fit: "
                f"cover crops images of {height} × {width} pixels; set data.fit: pad or stretch, "
                "or an image_size of their shape"
            )
        return found, mask.long().masked_fill(mask == VOID, UNLABELLED)

    def resized(self, image: Pixels, *, is_mask: bool = False) -> Pixels:
        """The image at its size in the input, before anything is cut off or padded."""
        height, width = image.shape[:2]
        size = self._sized(height, width)
        if size == (width, height):
            return image
        shrinks = size[0] < width or size[1] < height
        flag = _FLAGS[self.interpolation]
        if is_mask:
            flag = cv2.INTER_NEAREST_EXACT  # INTER_NEAREST is off by half a pixel
        elif shrinks and self.interpolation != "nearest":
            flag = cv2.INTER_AREA
        return np.asarray(cv2.resize(image, size, interpolation=flag), dtype=np.uint8)

    def _sized(self, height: int, width: int) -> tuple[int, int]:
        """Width and height before anything is cut off or padded."""
        if self.fit == "stretch":
            return self.width, self.height
        factors = self.height / height, self.width / width
        if self.fit == "pad":
            scaled = (round(width * min(factors)), round(height * min(factors)))
            return min(self.width, max(1, scaled[0])), min(self.height, max(1, scaled[1]))
        scaled = (round(width * max(factors)), round(height * max(factors)))
        # Rounding alone could fall one pixel short of the input.
        return max(self.width, scaled[0]), max(self.height, scaled[1])

    def _window(self, sized: Pixels, seed: int) -> tuple[slice, slice]:
        """Which rows and columns are kept; negative ones and those past the end are padding."""
        generator = np.random.default_rng((seed, 1))  # not the draws of the augmentation
        spans = []
        for side, whole, wanted in zip(
            sized.shape[:2], (self.height, self.width), self.size, strict=True
        ):
            if self.crop is None or side <= wanted:
                start = (side - wanted) // 2
            elif self.fit == "cover":
                # Crops come from what evaluation sees: the centre.
                first = (side - whole) // 2
                start = first + int(generator.integers(whole - wanted + 1))
            else:
                start = int(generator.integers(side - wanted + 1))
            spans.append(slice(start, start + wanted))
        return spans[0], spans[1]


def _sides(key: str, size: int | Sequence[int] | None) -> tuple[int, int] | None:
    match size:
        case None:
            return None
        case int(side):
            return side, side
        case [int(height), int(width)]:
            return height, width
    raise DataError(f"{key}: {size!r}, expected pixels or [height, width]")


def _cut(image: Pixels, window: tuple[slice, slice], colour: list[int]) -> Pixels:
    """The window of an image; what lies outside the image gets a colour."""
    (top, bottom), (left, right) = ((span.start, span.stop) for span in window)
    height, width = image.shape[:2]
    inside = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return inside
    border = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    padded = cv2.copyMakeBorder(inside, *border, cv2.BORDER_CONSTANT, value=colour)
    return np.asarray(padded, dtype=np.uint8)
