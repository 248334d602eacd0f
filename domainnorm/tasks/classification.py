"""One class per image."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from domainnorm.evaluation import PredictionStore, classification_metrics
from domainnorm.registry import register
from domainnorm.tasks.base import Task


@register
class Classification(Task):
    """One class per image: cross-entropy, scored by accuracy, balanced accuracy, macro-F1 and ECE.

    ``loss = Σ_n w[y_n] CE(logits_n, y_n) / Σ_n w[y_n]`` over the labelled samples of a batch; zero
    when there is none.

    Args:
        class_counts: Labelled training images of each class, (K,); a class without images gets
            the weight 0.
        label_smoothing: Probability mass ε spread over all classes, in [0, 1): ``CE = (1 - ε)
            CE_y + ε/K Σ_k w[k]/w[y] CE_k``.
        class_weights: ``"balanced"`` weighs each class by 1 / its count, with mean 1 over images.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        class_counts: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        weight = None
        if class_weights == "balanced":
            counts = class_counts.to(torch.float32)
            weight = counts.sum() / (counts.clamp(min=1) * (counts > 0).sum())
            weight = weight * (counts > 0)
        self.register_buffer("class_weight", weight, persistent=False)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weighted cross-entropy of ``logits`` (N, K) and ``target`` (N,)."""
        if bool((target < 0).all()):
            return logits.sum() * 0.0  # the mean over no sample would be nan
        return F.cross_entropy(
            logits.float(),
            target,
            weight=self.class_weight,
            ignore_index=-1,
            label_smoothing=self.label_smoothing,
        )

    def store(self) -> Metric:
        """Collects probabilities and targets."""
        return PredictionStore()

    def score(self, store: Metric) -> dict[str, float]:
        """See `domainnorm.evaluation.classification_metrics`."""
        return classification_metrics(store.compute())
