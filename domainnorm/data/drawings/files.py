"""Files of drawn images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray
from PIL import Image


def write_image(file: Path, pixels: NDArray[Any]) -> None:
    """Write an image in the format that the suffix names, and make the folder it is in.

    Args:
        file: Where to write.
        pixels: (H, W, 3) RGB, or (H, W) numbers, of 8 or 16 bits.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # OpenCV writes no grey PPM, and GIF not in every build.
    if file.suffix in (".gif", ".ppm"):
        Image.fromarray(pixels).save(file)
        return
    encoded = cv2.imencode(file.suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1]
    file.write_bytes(encoded.tobytes())
