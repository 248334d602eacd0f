"""Predictions on the target of large nuclear norm: sure ones, of many classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import bnm_loss
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import others, pixels
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class BNM(SupervisedMethod):
    """Supervised loss on the source, and batch nuclear-norm maximization on target images.

    ``L = L_supervised(source) - bnm_weight · ‖P‖_* / B`` with the probabilities P (B, K) of the
    target images of a batch; of masks, of 64 pixels of each image, drawn in equal parts from the
    classes that are predicted for it.

    Args:
        model: The network.
        task: Classification or segmentation.
        roles: Source and target domains.
        bnm_weight: Weight of the nuclear norm, at least 0.
        fast: Approximate singular values by norms of columns (FBNM).
        **options: See `SupervisedMethod`.

    Reference:
        Cui et al., Towards Discriminability and Diversity, CVPR 2020, arXiv:2003.12237;
        ``fast``: Cui et al., Fast Batch Nuclear-norm Maximization and Minimization, 2021,
        arXiv:2107.06154.
        Differs: from the authors' program, see `bnm_loss`; a weight of B / min(B, K) has its scale.
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
        bnm_weight: float = 1.0,
        fast: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.bnm_weight = bnm_weight
        self.fast = fast

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss of the labelled images, and minus the norm of the others."""
        logits, known = self.outputs(batch), batch["labelled"]
        return {
            "supervised": self.task.loss(logits[known], batch["target"][known]),
            "nuclear_norm": self.bnm_weight
            * bnm_loss(others(pixels(logits), known), fast=self.fast),
        }
