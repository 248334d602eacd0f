"""Serve a model that `domainnorm export --format onnx` has written, without torch.

Needs numpy, opencv-python-headless and onnxruntime, nothing else:

    python serve_onnx.py model.onnx --domain cellavision image_1.png image_2.png

All that it has to know (class names, domain names, size, mean, std) is in the file's metadata.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

_KERNELS = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


def read_image(path: str, white: int) -> NDArray[np.uint8]:
    """The pixels of a file, (h, w, 3) RGB; ``white`` is the 16-bit value that becomes 255."""
    image = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is not None and image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / white)
    if image is None or image.dtype != np.uint8:
        raise SystemExit(f"{path}: not an image of 8 or 16 bits that can be read")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def preprocess(image: NDArray[np.uint8], about: dict[str, Any]) -> NDArray[np.float32]:
    """Fit the image to the input as in training, and normalize: (3 or 1, H, W)."""
    height, width = about["height"], about["width"]
    wide, high = _sized(image, about)
    if (wide, high) != (image.shape[1], image.shape[0]):
        shrinks = wide < image.shape[1] or high < image.shape[0]
        averaged = shrinks and about["interpolation"] != "nearest"
        kernel = cv2.INTER_AREA if averaged else _KERNELS[about["interpolation"]]
        image = np.asarray(cv2.resize(image, (wide, high), interpolation=kernel), dtype=np.uint8)
    # What is over is cut off around the centre; what is missing gets the mean colour.
    top, left = (high - height) // 2, (wide - width) // 2
    colour = [round(255 * part) for part in about["mean"]] * (3 // len(about["mean"]))
    framed = np.full((height, width, 3), colour, dtype=np.uint8)
    kept = image[max(top, 0) : top + height, max(left, 0) : left + width]
    y, x = max(-top, 0), max(-left, 0)
    framed[y : y + kept.shape[0], x : x + kept.shape[1]] = kept
    if len(about["mean"]) == 1:  # a network of one channel
        framed = np.asarray(cv2.cvtColor(framed, cv2.COLOR_RGB2GRAY), dtype=np.uint8)[..., None]
    mean, std = np.float32(about["mean"]), np.float32(about["std"])
    scaled = framed.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1))


def _sized(image: NDArray[np.uint8], about: dict[str, Any]) -> tuple[int, int]:
    """Width and height of the image in the input, before anything is cut off or padded."""
    height, width = about["height"], about["width"]
    if about["fit"] == "stretch":
        return width, height
    factors = height / image.shape[0], width / image.shape[1]
    factor = min(factors) if about["fit"] == "pad" else max(factors)
    wide, high = round(image.shape[1] * factor), round(image.shape[0] * factor)
    if about["fit"] == "pad":
        return min(width, max(1, wide)), min(height, max(1, high))
    return max(width, wide), max(height, high)


def describe(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What a file says of itself, the content of its ``model.json``."""
    about: dict[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map["domainnorm"])
    if about["task"] not in ("classification", "multilabel"):
        raise SystemExit(f"this example serves classifiers, the file is for {about['task']}")
    return about


def classify(
    session: onnxruntime.InferenceSession, images: list[NDArray[np.uint8]], domains: list[str]
) -> tuple[NDArray[np.float32], list[str]]:
    """Probabilities (N, K) of images, each under the norms of its domain; names of the classes.

    Those of an image sum to one, but for findings (``multilabel``), each of which has its own.

    Args:
        session: Of a file that domainnorm has exported.
        images: (h, w, 3) RGB each, of any size.
        domains: A name per image; not looked at when the file holds a single folded domain.
    """
    about = describe(session)
    inputs = {"image": np.stack([preprocess(image, about["preprocessing"]) for image in images])}
    if about["domain"] is None:
        names = about["domain_names"]
        for name in domains:
            if name not in names:
                raise SystemExit(f"--domain: got '{name}', expected one of {', '.join(names)}")
        inputs["domain"] = np.asarray([names.index(name) for name in domains], dtype=np.int64)
    logits = session.run(None, inputs)[0]
    if about["task"] == "multilabel":
        return np.exp(-np.logaddexp(0, -logits)), about["class_names"]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True), about["class_names"]


def main() -> None:
    """Print the most likely class of each image, or every finding, with its probability."""
    parser = argparse.ArgumentParser(description="Classify images with an exported model.")
    parser.add_argument("model", help="model.onnx")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--domain", default="", help="the domain that the images come from")
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    about = describe(session)
    white = about["preprocessing"]["white"] or 65535
    images = [read_image(path, white) for path in arguments.images]
    probabilities, names = classify(session, images, [arguments.domain] * len(images))
    for path, row in zip(arguments.images, probabilities, strict=True):
        shown = range(len(names)) if about["task"] == "multilabel" else [int(row.argmax())]
        for number in shown:
            print(f"{path}\t{names[number]}\t{row[number]:.6f}")


if __name__ == "__main__":
    main()
