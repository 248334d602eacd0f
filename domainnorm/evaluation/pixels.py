"""Pixels by true and predicted class: counts of a batch, predictions and metrics of masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.evaluation.evaluated import (
    ClassScores,
    Evaluated,
    WeightedMetrics,
    class_labels,
    mean_ratio,
    ratio,
)

VOID = -1


@dataclass(frozen=True)
class SegmentationCounts(Evaluated):
    """Pixels of N images by true and predicted class, on the CPU.

    Images are not kept, because their counts say all that the metrics need: a domain's value is
    that of its counts summed over images. An image without any true class has no label.

    Args:
        confusion: Pixels of each true class predicted as each class (N, K, K), int64.
        boundary: Intersection and union of the boundaries of each class (N, K, 2), int64.
        index: Position of each image in its dataset (N,), int64.

    Raises:
        EvaluationError: A wrong shape, dtype, device or value.
    """

    confusion: Tensor
    boundary: Tensor
    index: Tensor
    kind: ClassVar[str] = "segmentation"

    def __post_init__(self) -> None:
        shape = tuple(self.confusion.shape)
        if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 1:
            self._refuse("confusion", f"shape {shape}", "(N, K, K) with K >= 1")
        count, classes = shape[:2]
        matching = " to match confusion"
        self._check("confusion", shape, torch.int64)
        self._check("boundary", (count, classes, 2), torch.int64, matching)
        self._check("index", (count,), torch.int64, matching)
        for name in ("confusion", "boundary"):
            if bool((getattr(self, name) < 0).any()):
                self._refuse(name, "negative numbers", "counts of pixels")

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return int(self.confusion.shape[1])

    @property
    def has_label(self) -> Tensor:
        """Whether each image has a pixel with a true class, (N,) bool."""
        return self.confusion.sum(dim=(1, 2)) > 0

    def weighted(self, *, class_names: Sequence[str] | None = None) -> PixelSums:
        """Weighted sums behind IoU, Dice, pixel accuracy and boundary IoU.

        Args:
            class_names: Names of the K classes, for the metrics of single classes; None for their
                numbers.

        Raises:
            EvaluationError: No image has a label, or the number of names is not K.
        """
        return PixelSums.of(self, class_labels(class_names, self.num_classes))

    def by_class(self) -> ClassScores:
        """IoU of each class, and the images that have pixels of it; nan as in `PixelSums.metrics`.

        Raises:
            EvaluationError: No image has a label.
        """
        found = self.metrics()
        values = [found[f"iou/{k}"] for k in range(self.num_classes)]
        images = (self.confusion.sum(dim=2) > 0).sum(dim=0)
        return ClassScores("iou", torch.tensor(values, dtype=torch.float64), images)


@dataclass(frozen=True)
class PixelSums(WeightedMetrics):
    """The sums over images that metrics need.

    Args:
        sums: See `WeightedMetrics`. Rows: K of hits, K of true pixels, K of predicted pixels, K of
            intersections and K of unions of boundaries.
        class_names: Names of the K classes.
    """

    class_names: list[str]

    @staticmethod
    def of(counts: SegmentationCounts, class_names: list[str]) -> PixelSums:
        """Sums of the labelled images of ``counts``."""
        known = counts.require_labels()
        parts = [
            known.confusion.diagonal(dim1=1, dim2=2),
            known.confusion.sum(dim=2),
            known.confusion.sum(dim=1),
            known.boundary[..., 0],
            known.boundary[..., 1],
        ]
        return PixelSums(torch.cat(parts, dim=1).T.double(), class_names)

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Metrics of the summed counts for several weightings at once, see `WeightedMetrics`.

        Returns:
            Values (B,) of ``miou``, ``dice`` and ``boundary_iou``, means over the classes that
            occur in truth or prediction; ``pixel_accuracy``; and ``iou/<class>``,
            ``dice/<class>`` and ``boundary_iou/<class>`` of each class, nan where it occurs in
            neither. All in [0, 1].
        """
        hits, true, predicted, common, union = (self.sums @ weights).chunk(5)  # (K, B) each
        iou, dice = ratio(hits, true + predicted - hits), ratio(2 * hits, true + predicted)
        boundary = ratio(common, union)
        return {
            "miou": mean_ratio(hits, true + predicted - hits),
            "dice": mean_ratio(2 * hits, true + predicted),
            "pixel_accuracy": hits.sum(dim=0) / true.sum(dim=0),
            "boundary_iou": mean_ratio(common, union),
            **{f"iou/{name}": iou[k] for k, name in enumerate(self.class_names)},
            **{f"dice/{name}": dice[k] for k, name in enumerate(self.class_names)},
            **{f"boundary_iou/{name}": boundary[k] for k, name in enumerate(self.class_names)},
        }


def confusion_counts(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Pixels of each true class that were predicted as each class.

    Args:
        predicted: Predicted classes (N, H, W), int64, in [0, K).
        target: True classes (N, H, W), int64; `VOID` where there is none, which is not counted.
        num_classes: Number of classes K.

    Returns:
        (N, K, K), int64: image, true class, predicted class.
    """
    image = torch.arange(len(target), device=target.device)[:, None, None]
    cell = ((image * num_classes + target) * num_classes + predicted)[target != VOID]
    counts = torch.bincount(cell, minlength=len(target) * num_classes**2)
    return counts.view(-1, num_classes, num_classes)


def boundary_counts(predicted: Tensor, target: Tensor, num_classes: int, ratio: float) -> Tensor:
    """Intersection and union of the inner boundaries of each class.

    A pixel belongs to the boundary of its class when it is at most ``d = max(1, round(ratio ·
    diagonal))`` pixels, rows and columns counted apart, from one of another class. What lies beyond
    the image is another class, in truth and prediction alike, as in the authors' code. Void is the
    same: nobody knows what is there, and it is not counted.

    Args:
        predicted: Predicted classes (N, H, W), int64, in [0, K).
        target: True classes (N, H, W), int64, `VOID` where there is none.
        num_classes: Number of classes K.
        ratio: Distance d as a fraction of the image's diagonal, > 0.

    Returns:
        (N, K, 2), int64: image, class, intersection and union.

    Reference:
        Cheng et al., Boundary IoU, CVPR 2021, arXiv:2103.16562, eq. 2, for each class apart.
    """
    distance = max(1, round(ratio * math.hypot(*target.shape[-2:])))
    masked = torch.where(target == VOID, VOID, predicted)
    true, guess = _inner_boundary(torch.stack([target, masked]), distance)
    image = torch.arange(len(target), device=target.device)[:, None, None]

    def count(label: Tensor, chosen: Tensor) -> Tensor:
        cell = (image * num_classes + label)[chosen]
        return torch.bincount(cell, minlength=len(target) * num_classes).view(-1, num_classes)

    both = count(target, true & guess & (target == masked))
    union = count(target, true) + count(masked, guess) - both
    return torch.stack([both, union], dim=2)


def _inner_boundary(label: Tensor, distance: int) -> Tensor:
    """Pixels with another class in the square of ``2 · distance + 1`` pixels around them.

    Eroding the mask of every class comes to the same: a pixel stays in the mask of its class when
    smallest and largest label of the square are equal. Two filters serve all classes that way.
    Labels are at most 32767; pixels of `VOID` belong to no boundary.
    """
    padded = F.pad(label, (distance,) * 4, value=VOID).to(torch.int16)
    highest, lowest = padded, -padded
    for axis in (-2, -1):  # a square is a row of columns
        highest = _sliding_max(highest, 2 * distance + 1, axis)
        lowest = _sliding_max(lowest, 2 * distance + 1, axis)
    return (highest != -lowest) & (label != VOID)


def _sliding_max(values: Tensor, size: int, axis: int) -> Tensor:
    """Largest of ``size`` neighbours, by doubling: a max-pool takes as many steps as it is wide."""
    width = 1
    while width < size:
        step = min(width, size - width)
        rest = values.shape[axis] - step
        values = torch.maximum(values.narrow(axis, 0, rest), values.narrow(axis, step, rest))
        width += step
    return values
