"""Entropy minimization on a stream, as published."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.methods.online_entropy import OnlineEntropy
from domainnorm.methods.roles import Roles
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class TENTOnline(OnlineEntropy):
    """Predict a stream, and train scale and shift to minimize the mean entropy of each batch.

    One step for each batch, on all samples. `TENT` does the same on training images before the
    test.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        lr: Learning rate of Adam.
        opinion: Minimize the entropy of opinions, see `opinion_entropies`.
        **options: See `OnlineEntropy`.

    Reference:
        Wang et al., Tent: Fully Test-time Adaptation by Entropy Minimization, ICLR 2021,
        arXiv:2006.10726, eq. 1 and sec. 3.3.
        Differs: scales and shifts of all kinds of conditional norms, there of batch norms; running
        moments follow the stream, which does not use them.
    """

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 1e-3,
        opinion: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, **options)
        self.opinion = opinion

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over scales and shifts, as in the paper."""
        return torch.optim.Adam(self.adapted, lr=self.lr)

    def loss_of(self, logits: Tensor) -> Tensor | None:
        """Mean entropy."""
        return self.minimized(logits).mean()
