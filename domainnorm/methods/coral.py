"""Outputs of equal covariance in both domains."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import coral_loss
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import by_role, cells
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class CORAL(SupervisedMethod):
    """Supervised loss on the source, and the distance between source and target covariances.

    ``L = L_supervised(source) + coral_weight · coral_loss(source, target)`` on the logits, or on
    the features in front of the classifier. Several sources are one role, several targets another.
    Of masks, samples are means over each cell of a grid of 8 × 8.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        coral_weight: Weight of the distance between the covariances, at least 0.
        layer: Layer whose covariances are compared: ``logits`` or ``features``. The loss of
            ``features`` is smaller and needs a weight larger by orders of magnitude.
        **options: See `SupervisedMethod`.

    Reference:
        Sun and Saenko, Deep CORAL, ECCV Workshops 2016, arXiv:1607.01719, eq. 1 to 6.
        Differs: a weight of 1, where the authors look for one under which both losses end alike.
    """

    labelled: str = "source"
    unlabelled: str = "target"
    starts_from: str = "backbone"
    balance: str = "role"
    tasks: tuple[str, ...] = ("classification", "multilabel", "segmentation")  # of classifiers

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        coral_weight: float = 1.0,
        layer: Literal["logits", "features"] = "logits",
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.coral_weight = coral_weight
        self.layer = layer

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss of the labelled images, and the distance of both roles."""
        features, logits = self.features(batch)
        known = batch["labelled"]
        source, target = by_role(cells(features if self.layer == "features" else logits), known)
        return {
            "supervised": self.task.loss(logits[known], batch["target"][known]),
            "coral": self.coral_weight * coral_loss(source, target),
        }
