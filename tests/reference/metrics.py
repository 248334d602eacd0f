"""Slow, obvious metrics: Python loops over samples, classes and bins, from the formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence


def _top(row: Sequence[float]) -> int:
    return max(range(len(row)), key=lambda k: (row[k], -k))


def accuracy(probabilities: Sequence[Sequence[float]], target: Sequence[int]) -> float:
    right = 0
    for row, label in zip(probabilities, target, strict=True):
        right += _top(row) == label
    return right / len(target)


def balanced_accuracy(probabilities: Sequence[Sequence[float]], target: Sequence[int]) -> float:
    recalls = []
    for k in sorted(set(target)):
        members = [row for row, label in zip(probabilities, target, strict=True) if label == k]
        recalls.append(sum(_top(row) == k for row in members) / len(members))
    return sum(recalls) / len(recalls)


def macro_f1(probabilities: Sequence[Sequence[float]], target: Sequence[int]) -> float:
    predicted = [_top(row) for row in probabilities]
    scores = []
    for k in sorted(set(target) | set(predicted)):
        pairs = list(zip(predicted, target, strict=True))
        true_positive = sum(p == k and t == k for p, t in pairs)
        false_positive = sum(p == k and t != k for p, t in pairs)
        false_negative = sum(p != k and t == k for p, t in pairs)
        scores.append(2 * true_positive / (2 * true_positive + false_positive + false_negative))
    return sum(scores) / len(scores)


def ece(probabilities: Sequence[Sequence[float]], target: Sequence[int], bins: int = 15) -> float:
    error = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [
            (max(row), _top(row) == label)
            for row, label in zip(probabilities, target, strict=True)
            if low < max(row) <= high
        ]
        if inside:
            confidence = sum(c for c, _ in inside) / len(inside)
            correct = sum(right for _, right in inside) / len(inside)
            error += len(inside) / len(target) * abs(correct - confidence)
    return error


def nll(probabilities: Sequence[Sequence[float]], target: Sequence[int]) -> float:
    total = 0.0
    for row, label in zip(probabilities, target, strict=True):
        total -= math.log(row[label])
    return total / len(target)
