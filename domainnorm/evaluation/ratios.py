"""What metrics of several classes share: ratios of counts, and names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainnorm.evaluation.evaluated import EvaluationError


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient of counts (K, B), nan where the denominator is zero."""
    return torch.where(denominator > 0, numerator / denominator, torch.nan)


def mean_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Mean quotient over the classes (K, B) whose denominator is positive; nan where there is none.

    A class without samples has no recall. torchmetrics calls it 0 once it is predicted by mistake.
    """
    return ratio(numerator, denominator).nanmean(dim=0)


def class_labels(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    """The names of the classes, their numbers when there are none.

    Raises:
        EvaluationError: Their number is wrong, or a name comes twice.
    """
    if class_names is None:
        return [str(k) for k in range(num_classes)]
    if len(class_names) != num_classes or len(set(class_names)) != num_classes:
        raise EvaluationError(
            f"metrics: class_names={list(class_names)} for {num_classes} classes; give one "
            "distinct name per class"
        )
    return list(class_names)
