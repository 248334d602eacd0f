"""Metrics of masks written from their definitions: loops over images, classes and pixels."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import binary_erosion

VOID = -1


def confusion(predicted, target, num_classes):
    """Pixels of each true class predicted as each class, of all images together."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for guess, truth in zip(predicted, target, strict=True):
        for row in range(truth.shape[0]):
            for column in range(truth.shape[1]):
                if truth[row, column] != VOID:
                    counts[truth[row, column], guess[row, column]] += 1
    return counts


def ious(predicted, target, num_classes):
    """IoU of each class; None for a class that is nowhere."""
    counts = confusion(predicted, target, num_classes)
    return [
        _ratio(counts[k, k], counts[k].sum() + counts[:, k].sum() - counts[k, k])
        for k in range(num_classes)
    ]


def dices(predicted, target, num_classes):
    """Dice of each class; None for a class that is nowhere."""
    counts = confusion(predicted, target, num_classes)
    return [
        _ratio(2 * counts[k, k], counts[k].sum() + counts[:, k].sum()) for k in range(num_classes)
    ]


def pixel_accuracy(predicted, target, num_classes):
    counts = confusion(predicted, target, num_classes)
    return counts.trace() / counts.sum()


def inner_boundary(mask, distance):
    """The part of a mask that iterated erosion removes; beyond the image nothing is set."""
    square = np.ones((3, 3), dtype=bool)
    return mask & ~binary_erosion(mask, square, iterations=distance, border_value=0)


def boundary_counts(predicted, target, num_classes, ratio):
    """Intersection and union of the boundaries of each class, of all images together."""
    counts = np.zeros((num_classes, 2), dtype=np.int64)
    for guess, truth in zip(predicted, target, strict=True):
        known = truth != VOID
        distance = max(1, round(ratio * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)))
        for k in range(num_classes):
            true = inner_boundary((truth == k) & known, distance)
            found = inner_boundary((guess == k) & known, distance)
            counts[k] += [(true & found).sum(), (true | found).sum()]
    return counts


def boundary_ious(predicted, target, num_classes, ratio=0.02):
    counts = boundary_counts(predicted, target, num_classes, ratio)
    return [_ratio(*counts[k]) for k in range(num_classes)]


def mean(values):
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _ratio(numerator, denominator):
    return None if denominator == 0 else numerator / denominator
