"""Findings per image, each present, absent or unknown."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics import Metric

from domainnorm.evaluation import MultiLabelStore
from domainnorm.losses import masked_bce_loss
from domainnorm.registry import register
from domainnorm.tasks.base import Task


@register
class MultiLabel(Task):
    """Several findings per image: binary cross-entropy, scored by AUROC and average precision.

    ``loss = mean over known (n, k) of BCE(logits[n, k], y[n, k])``; unknown findings do not count.
    """

    labels: str = "multilabel"
    metric: str = "auroc"

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of ``logits`` (N, K) and ``target`` (N, K) in {−1, 0, 1}."""
        return masked_bce_loss(logits, target)

    def store(self) -> Metric:
        """Collects probabilities and targets."""
        return MultiLabelStore()

    def metric_options(self, bins: int = 15) -> dict[str, Any]:
        """The names of the findings."""
        return {"class_names": self.class_names}
