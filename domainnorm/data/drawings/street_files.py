"""Drawn streets as image and mask files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import VOID
from domainnorm.data.drawings.canvas import Scene
from domainnorm.data.drawings.street import draw_street
from domainnorm.data.label_sets import Lookup


def streets(seed: int, stream: str, count: int) -> Iterator[Scene]:
    """Different scenes for each name of a stream, such as a domain and split."""
    digits = int.from_bytes(stream.encode(), "big") % 1_000_003
    for number in range(count):
        yield draw_street((seed * 1_000_003 + digits) * 1_000 + number)


def write_image(file: Path, pixels: NDArray[Any]) -> None:
    """Write (H, W, 3) RGB, or (H, W) numbers, of 8 or 16 bits; the suffix says the format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(file.suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1]
    file.write_bytes(encoded.tobytes())


def inverted(lookup: Lookup) -> Lookup:
    """The first value of a mask file for each class, (256,); 255 for classes it cannot hold."""
    values = np.full(256, VOID, dtype=np.uint8)
    for value in reversed(range(256)):
        if lookup[value] != VOID:
            values[lookup[value]] = value
    return values
