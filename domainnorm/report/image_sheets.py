"""Sheets of images: a few of every domain, and masks over their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from domainnorm.evaluation import EvaluationError, SegmentationCounts, confusion_counts
from domainnorm.report.figure import (
    LARGE,
    MUTED,
    NORMAL,
    SMALL,
    create_figure,
    hide_frame,
    literal,
    save_figure,
)

if TYPE_CHECKING:
    from domainnorm.data import Discovery

_VOID = 255
_OPACITY = 0.45
_WIDTH, _TILE = 10.0, 2.6  # inches: of the page, and of a tile at most
_SMALL_TILE, _LINE = 1.05, 0.12  # inches: of a contact sheet
_TYPICAL, _SIDE = 8, 256  # images of a domain that was found; pixels of the shorter side
_UNPAINTED = "background"


@dataclass(frozen=True)
class Overlay:
    """One image with masks.

    Args:
        image: RGB pixels (H, W, 3), uint8.
        truth: True classes (H, W), integers; 255 or a negative number where there is none. None for
            an image whose classes nobody knows.
        predictions: Name of a model → its classes (H, W); before adaptation first.
        name: What to write beside the image, such as its domain.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.integer] | None
    predictions: Mapping[str, NDArray[np.integer]] = field(default_factory=dict)
    name: str = ""

    @property
    def masks(self) -> dict[str, NDArray[np.integer]]:
        """All there are, the truth first."""
        truth = {} if self.truth is None else {"truth": self.truth}
        return {**truth, **self.predictions}


def save_overlays(
    rows: Sequence[Overlay],
    path: str | PathLike[str],
    class_names: Sequence[str],
    class_colours: Sequence[tuple[int, int, int]],
    title: str = "",
) -> None:
    """Draw image, truth and predictions of each row, masks as colours with outlines.

    Void pixels, and those of a class named ``background``, show the image as it is. Under each
    prediction stands the mean IoU of this image, over the classes in truth or prediction. Truth
    has no column where no image has any.

    Args:
        rows: Images; sizes may differ, and a model may lack an image.
        path: File to write; its suffix decides the format.
        class_names: Names of the K classes.
        class_colours: An RGB colour for each, 0 to 255.
        title: Heading.

    Raises:
        EvaluationError: No image, sizes of image and mask that differ, a class that does not exist,
            or not one colour per class.
    """
    _check(rows, len(class_names), len(class_colours))
    shown = list(dict.fromkeys(name for row in rows for name in row.masks))
    shown.sort(key=lambda name: name != "truth")
    figure, grid = _panels(rows, 1 + len(shown), bool(title), len(class_names))
    for axes, heading in zip(grid[0], ("image", *shown), strict=True):
        axes.set_title(literal(heading), fontsize=NORMAL)
    colours = np.asarray(class_colours, dtype=np.float64)
    painted = [place for place, name in enumerate(class_names) if name != _UNPAINTED]
    for line, row in zip(grid, rows, strict=True):
        line[0].set_ylabel(literal(row.name), fontsize=NORMAL)
        line[0].imshow(row.image)
        masks = row.masks
        for axes, name in zip(line[1:], shown, strict=True):
            if name not in masks:
                axes.text(0.5, 0.5, "–", ha="center", va="center", transform=axes.transAxes)
                continue
            axes.imshow(_paint(row.image, masks[name], colours, painted))
            if row.truth is not None and name in row.predictions:
                caption = _caption(row.truth, masks[name], len(class_names))
                axes.set_xlabel(caption, fontsize=SMALL)
    seen = {int(k) for row in rows for mask in row.masks.values() for k in np.unique(mask)}
    handles = [
        Patch(facecolor=colours[k] / 255, edgecolor="black", lw=0.4, label=literal(class_names[k]))
        for k in painted
        if k in seen
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=6, fontsize=SMALL, frameon=False
        )
    save_figure(figure, path, title)


def _panels(
    rows: Sequence[Overlay], columns: int, title: bool, classes: int
) -> tuple[Figure, NDArray[np.object_]]:
    """A figure whose rows are as high as their images, and its axes (rows, columns)."""
    tile = min(_TILE, _WIDTH / columns)
    heights = [tile * row.image.shape[0] / row.image.shape[1] for row in rows]
    extra = 0.35 + 0.3 * title + 0.2 * -(-classes // 6)
    width = max(columns * tile + 0.3, 5.2)  # the legend needs some room
    captions = sum(0.1 if row.truth is None else 0.3 for row in rows)
    height = sum(heights) + captions + extra
    figure, grid = create_figure(width, height, len(rows), columns, height_ratios=heights)
    for axes in grid.flat:
        hide_frame(axes)
    return figure, grid


def _paint(
    image: NDArray[np.uint8],
    mask: NDArray[np.integer],
    colours: NDArray[np.float64],
    painted: Sequence[int],
) -> NDArray[np.uint8]:
    """The image under the transparent colours of its classes, with opaque outlines."""
    covered = np.isin(mask, painted)
    colour = colours[np.where(covered, mask, 0)]  # (H, W, 3)
    opacity = (np.where(_outline(mask), 1.0, _OPACITY) * covered)[..., None]
    mixed: NDArray[np.uint8] = (image * (1 - opacity) + colour * opacity).round().astype(np.uint8)
    return mixed


def _outline(mask: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Pixels with a neighbour of another class above, below, left or right."""
    line = np.zeros(mask.shape, dtype=bool)
    beside, below = mask[:, :-1] != mask[:, 1:], mask[:-1] != mask[1:]
    line[:, :-1] |= beside
    line[:, 1:] |= beside
    line[:-1] |= below
    line[1:] |= below
    return line


def _caption(truth: NDArray[np.integer], mask: NDArray[np.integer], classes: int) -> str:
    target = torch.from_numpy(truth.astype(np.int64))[None]
    target = target.masked_fill((target < 0) | (target == _VOID), -1)
    confusion = confusion_counts(torch.from_numpy(mask.astype(np.int64))[None], target, classes)
    if int(confusion.sum()) == 0:
        return "no truth"
    boundary = torch.zeros(1, classes, 2, dtype=torch.int64)
    counts = SegmentationCounts(confusion, boundary, torch.zeros(1, dtype=torch.int64))
    return f"mIoU {counts.metrics()['miou']:.2f}"


def _check(rows: Sequence[Overlay], classes: int, colours: int) -> None:
    if not rows:
        raise EvaluationError("save_overlays: no image came, expected at least one")
    if classes != colours:
        raise EvaluationError(
            f"save_overlays: {colours} colours for {classes} classes; give one per class"
        )
    for row in rows:
        _check_row(row, classes)


def _check_row(row: Overlay, classes: int) -> None:
    if row.image.dtype != np.uint8 or row.image.ndim != 3 or row.image.shape[2] != 3:
        raise EvaluationError(
            f"save_overlays: an image of '{row.name}' is {row.image.dtype} {row.image.shape}; "
            "expected uint8 (H, W, 3)"
        )
    for name, mask in row.masks.items():
        if mask.shape != row.image.shape[:2]:
            raise EvaluationError(
                f"save_overlays: mask '{name}' of '{row.name}' has shape {mask.shape}, its image "
                f"{row.image.shape[:2]}; resize the mask to the image"
            )
        wrong = mask[(mask >= classes) & (mask != _VOID)]
        if name != "truth":
            wrong = mask[(mask < 0) | (mask >= classes)]
        if wrong.size:
            raise EvaluationError(
                f"save_overlays: mask '{name}' of '{row.name}' has class {wrong[0]}, expected 0 "
                f"to {classes - 1}"
            )


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
    height = len(images) * (_SMALL_TILE + lines * _LINE) + (0.35 if title else 0.0)
    figure, grid = create_figure(side + columns * _SMALL_TILE, height, len(images), columns)
    for line, (domain, tiles) in zip(grid, images.items(), strict=True):
        for axes in line:
            hide_frame(axes)
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
    save_figure(figure, path, title)


def save_found_domains(discovery: Discovery, path: str | PathLike[str]) -> None:
    """Draw the most typical training images of each domain in a row of its own."""
    sizes = discovery.found.size.tolist()
    rows = {
        f"{name} ({sizes[label]})": discovery.typical(label, _TYPICAL, _SIDE)
        for label, name in enumerate(discovery.domain_names)
    }
    save_contact_sheet(rows, path, "Typical images of the domains found")


def _checked(image: NDArray[np.uint8], domain: str) -> NDArray[np.uint8]:
    flat = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if image.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[-1] == 3)):
        raise EvaluationError(
            f"save_contact_sheet: an image of '{domain}' is {image.dtype} {image.shape}; expected "
            "uint8 (H, W, 3), (H, W, 1) or (H, W)"
        )
    return flat
