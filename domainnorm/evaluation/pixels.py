"""Counts of pixels by true and predicted class, for all images of a batch at once."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

VOID = -1


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
    smallest and largest label of the square are equal. Two pools serve all classes that way.

    Args:
        label: (..., H, W), int64, >= 0, or `VOID`, whose own pixels belong to no boundary.
        distance: Side of half a square, >= 1.
    """
    size = 2 * distance + 1
    # float32 holds labels exactly and is what every device can pool.
    flat = label.reshape(-1, 1, *label.shape[-2:]).float()
    padded = F.pad(flat, (distance,) * 4, value=VOID)
    extremes = torch.cat([padded, -padded], dim=1)
    for kernel in ((1, size), (size, 1)):  # a square is a row of columns
        extremes = F.max_pool2d(extremes, kernel, stride=1)
    highest, lowest = extremes[:, :1], -extremes[:, 1:]
    return ((highest != lowest) & (flat != VOID)).view(label.shape)
