"""A few images of every domain on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from domainnorm.evaluation import EvaluationError
from domainnorm.report.canvas import (
    LARGE,
    MUTED,
    NORMAL,
    SMALL,
    create_figure,
    literal,
    save_figure,
)

_TILE, _LINE = 1.05, 0.12  # inches


def save_contact_sheet(
    images: Mapping[str, Sequence[NDArray[np.uint8]]],
    path: str | PathLike[str],
    title: str = "",
    captions: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Draw the images of each domain in a row of its own.

    Args:
        images: Domain → images, uint8 (H, W, 3), (H, W, 1) or (H, W); sizes may differ.
        path: File to write; its suffix decides the format.
        title: Heading.
        captions: Domain → what to write below each of its images, of one line or several.

    Raises:
        EvaluationError: There is no image, or one has another shape or dtype.
    """
    columns = max(map(len, images.values()), default=0)
    if columns == 0:
        raise EvaluationError("save_contact_sheet: no image came, expected at least one")
    side = 0.35 + 0.085 * max(map(len, images))
    texts = captions or {}
    lines = max((text.count("\n") + 1 for row in texts.values() for text in row), default=0)
    height = len(images) * (_TILE + lines * _LINE) + (0.35 if title else 0.0)
    figure = create_figure(side + columns * _TILE, height)
    grid = figure.subplots(len(images), columns, squeeze=False)
    for line, (domain, tiles) in zip(grid, images.items(), strict=True):
        for axes in line:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(
            literal(domain), fontsize=NORMAL, rotation=0, ha="right", va="center", labelpad=6
        )
        if not tiles:
            line[0].text(0.5, 0.5, "–", ha="center", va="center", fontsize=LARGE, color=MUTED)
        for axes, image in zip(line, tiles, strict=False):
            # Small images are enlarged without blur: what the network sees are pixels.
            axes.imshow(_checked(image, domain), cmap="gray", vmin=0, vmax=255)
        for axes, text in zip(line, texts.get(domain, ()), strict=False):
            axes.set_xlabel(literal(text), fontsize=SMALL - 2, labelpad=2)
    if title:
        figure.suptitle(literal(title), fontsize=LARGE)
    save_figure(figure, path)


def _checked(image: NDArray[np.uint8], domain: str) -> NDArray[np.uint8]:
    flat = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if image.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[-1] == 3)):
        raise EvaluationError(
            f"save_contact_sheet: an image of '{domain}' is {image.dtype} {image.shape}; expected "
            "uint8 (H, W, 3), (H, W, 1) or (H, W)"
        )
    return flat
