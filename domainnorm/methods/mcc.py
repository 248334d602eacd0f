"""Predictions on the target that confuse no classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import confusion_loss
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import others
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class MCC(SupervisedMethod):
    """Supervised loss on the source, and minimum class confusion on target images.

    ``L = L_supervised(source) + confusion_weight · confusion_loss(target)``; in masks each pixel is
    a sample. The confusion is computed within a batch, so a batch should have several images of
    most classes.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        confusion_weight: Weight of the loss on target images, at least 0.
        temperature: Divisor of the logits, above 0.
        **options: See `SupervisedMethod`.

    Reference:
        Jin et al., Minimum Class Confusion for Versatile Domain Adaptation, ECCV 2020,
        arXiv:1912.03699, eq. 3 to 6.
    """

    labelled: str = "source"
    unlabelled: str = "target"
    starts_from: str = "backbone"
    balance: str = "role"
    tasks: tuple[str, ...] = ("classification", "segmentation")

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        confusion_weight: float = 1.0,
        temperature: float = 2.5,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.confusion_weight = confusion_weight
        self.temperature = temperature

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss of the labelled images, and the confusion of the others."""
        logits, known = self.outputs(batch), batch["labelled"]
        confusion = confusion_loss(others(logits, known), self.temperature)
        return {
            "supervised": self.task.loss(logits[known], batch["target"][known]),
            "confusion": self.confusion_weight * confusion,
        }
