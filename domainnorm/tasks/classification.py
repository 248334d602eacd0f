"""Classification: one class per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from domainnorm.evaluation import PredictionStore
from domainnorm.losses.checks import check_classes
from domainnorm.registry import register
from domainnorm.tasks.base import Task


@register
class Classification(Task):
    """One class per image: cross-entropy, scored by accuracy, balanced accuracy, macro-F1 and ECE.

    ``loss = Σ_n w[y_n] CE(logits_n, y_n) / Σ_n w[y_n]`` over the labelled samples of a batch; zero
    when there is none.

    Args:
        class_names: Names of the K classes.
        label_smoothing: Probability mass ε spread over all classes, in [0, 1): ``CE = (1 - ε)
            CE_y + ε/K Σ_k w[k]/w[y] CE_k``.
        class_weights: ``none``, or ``balanced``: each class has the weight 1 / its count, scaled
            to mean 1 over images. A class without training images gets the weight 0.
    """

    labels: str = "classification"
    metric: str = "balanced_accuracy"
    class_weight: Tensor | None

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        label_smoothing: float = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
    ) -> None:
        super().__init__(class_names)
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.register_buffer("class_weight", None, persistent=False)

    def weigh_classes(self, frequency: Tensor) -> None:
        """Set the weights of the classes from their shares of the training images, (K,)."""
        present = frequency > 0
        weight = torch.where(present, 1 / (frequency * present.sum()), 0.0)
        self.class_weight = weight.float()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weighted cross-entropy of ``logits`` (N, K) and ``target`` (N,), −1 unknown.

        Raises:
            DomainNormError: See `check_classes`.
        """
        check_classes("classification loss", logits, target)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        weight = None if self.class_weight is None else self.class_weight.to(wide)
        known = target[target >= 0]
        if not len(known) or (weight is not None and not bool(weight[known].any())):
            return logits.sum() * 0.0  # the mean over no sample would be nan
        return F.cross_entropy(
            wide, target, weight, ignore_index=-1, label_smoothing=self.label_smoothing
        )

    def store(self) -> Metric:
        """Collects probabilities and targets."""
        return PredictionStore()

    def metric_options(self, bins: int = 15) -> dict[str, Any]:
        """The bins of the calibration error."""
        return {"bins": bins}
