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


def read_image(path: str) -> NDArray[np.uint8]:
    """The pixels of a file, (h, w, 3) RGB."""
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path}: not an image that can be read")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def preprocess(image: NDArray[np.uint8], about: dict[str, Any]) -> NDArray[np.float32]:
    """Resize so that the image covers the input, cut its centre, normalize: (3 or 1, H, W)."""
    height, width = about["height"], about["width"]
    factor = max(height / image.shape[0], width / image.shape[1])
    size = (
        max(width, round(image.shape[1] * factor)),
        max(height, round(image.shape[0] * factor)),
    )
    if size != (image.shape[1], image.shape[0]):
        shrinks = factor < 1 and about["interpolation"] != "nearest"
        kernel = cv2.INTER_AREA if shrinks else _KERNELS[about["interpolation"]]
        image = np.asarray(cv2.resize(image, size, interpolation=kernel), dtype=np.uint8)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    image = image[top : top + height, left : left + width]
    if len(about["mean"]) == 1:  # a network of one channel
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)[..., None]
    mean, std = np.float32(about["mean"]), np.float32(about["std"])
    scaled = image.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1))


def classify(
    session: onnxruntime.InferenceSession, images: list[NDArray[np.uint8]], domains: list[str]
) -> tuple[NDArray[np.float32], list[str]]:
    """Class probabilities (N, K) of images, each under the norms of its domain; class names.

    Args:
        session: Of a file that domainnorm has exported.
        images: (h, w, 3) RGB each, of any size.
        domains: A name per image; not looked at when the file holds a single folded domain.
    """
    about = json.loads(session.get_modelmeta().custom_metadata_map["domainnorm"])
    inputs = {"image": np.stack([preprocess(image, about["preprocessing"]) for image in images])}
    if about["domain"] is None:
        names = about["domain_names"]
        for name in domains:
            if name not in names:
                raise SystemExit(f"--domain: got '{name}', expected one of {', '.join(names)}")
        inputs["domain"] = np.asarray([names.index(name) for name in domains], dtype=np.int64)
    logits = session.run(None, inputs)[0]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True), about["class_names"]


def main() -> None:
    """Print the most likely class of each image and its probability."""
    parser = argparse.ArgumentParser(description="Classify images with an exported model.")
    parser.add_argument("model", help="model.onnx")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--domain", default="", help="the domain that the images come from")
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    images = [read_image(path) for path in arguments.images]
    probabilities, names = classify(session, images, [arguments.domain] * len(images))
    for path, row in zip(arguments.images, probabilities, strict=True):
        print(f"{path}\t{names[int(row.argmax())]}\t{row.max():.6f}")


if __name__ == "__main__":
    main()
