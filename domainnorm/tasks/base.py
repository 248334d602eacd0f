"""What a task gives to a method."""

from __future__ import annotations

import abc

from torch import Tensor, nn
from torchmetrics import Metric


class Task(nn.Module, abc.ABC):
    """A supervised loss, and how predictions are collected and scored."""

    @abc.abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar supervised loss; samples whose target is −1 do not count."""

    @abc.abstractmethod
    def store(self) -> Metric:
        """A fresh metric that collects ``update(logits, target, index)``."""

    @abc.abstractmethod
    def score(self, store: Metric) -> dict[str, float]:
        """Metrics of what a store has collected."""
