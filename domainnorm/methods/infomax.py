"""Predictions on the target that say much of an image: sure ones, of all classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import infomax_loss
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import others, pixels
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class InfoMax(SupervisedMethod):
    """Supervised loss on the source, and information maximization on target images.

    ``L = L_supervised(source) + infomax_weight · (mean_n H(p_n) - H(mean_n p_n))`` over the target
    images of a batch; of masks, over 64 pixels of each image, drawn in equal parts from the classes
    that are predicted for it.

    Args:
        model: The network.
        task: Classification or segmentation.
        roles: Source and target domains.
        infomax_weight: Weight of the loss on target images, at least 0.
        **options: See `SupervisedMethod`.

    Reference:
        Krause et al., Discriminative Clustering by Regularized Information Maximization, NeurIPS
        2010; Liang et al., ICML 2020, arXiv:2002.08546, eq. 3.
        Differs: beside the source's loss, from a plain backbone; `SHOT` has it without a source.
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
        infomax_weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.infomax_weight = infomax_weight

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss of the labelled images, and that of the others."""
        logits, known = self.outputs(batch), batch["labelled"]
        return {
            "supervised": self.task.loss(logits[known], batch["target"][known]),
            "infomax": self.infomax_weight * infomax_loss(others(pixels(logits), known)),
        }
