"""Writing of drawn pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def save(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an image in the format that the suffix names, and the folder it is in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
