"""One class per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from domainnorm.evaluation.evaluated import Evaluated
from domainnorm.evaluation.ratios import class_labels, mean_ratio, ratio


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


@dataclass(frozen=True)
class PixelSums:
    """The sums over images that metrics need, as a matrix that weights multiply.

    Args:
        sums: What each image adds to each sum, float64 (5K, N). Rows: K of hits, K of true pixels,
            K of predicted pixels, K of intersections and K of unions of boundaries.
        class_names: Names of the K classes.
    """

    sums: Tensor
    class_names: list[str]

    @staticmethod
    def of(counts: SegmentationCounts, class_names: list[str]) -> PixelSums:
        """Sums of the labelled images of ``counts``.

        Raises:
            EvaluationError: No image has a label.
        """
        known = counts.require_labels()
        parts = [
            known.confusion.diagonal(dim1=1, dim2=2),
            known.confusion.sum(dim=2),
            known.confusion.sum(dim=1),
            known.boundary[..., 0],
            known.boundary[..., 1],
        ]
        return PixelSums(torch.cat(parts, dim=1).T.double(), class_names)

    @property
    def num_samples(self) -> int:
        """Number of labelled images N."""
        return int(self.sums.shape[1])

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Weighted metrics of the summed counts for several weightings at once.

        Args:
            weights: Weight of each labelled image in each weighting, (N, B), float64, >= 0; every
                column has a positive sum.

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
