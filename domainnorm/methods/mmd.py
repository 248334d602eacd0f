"""Features of equal distribution in both domains, by kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import mmd_loss
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import by_role, cells
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.norms.kernels.partition import several_ranks
from domainnorm.registry import register
from domainnorm.tasks import Task

_MOST = 2048  # samples that are compared with each other


@register
class MMD(SupervisedMethod):
    """Supervised loss on the source, and a kernel distance of source and target features (DAN).

    ``L = L_supervised(source) + mmd_weight · mmd_loss(source, target)`` on the features in front of
    the classifier. Several sources are one role, several targets another. Of masks, samples are
    means over cells of a grid of 8 × 8, the same cells of each image, drawn for each batch so that
    it has no more than 2,048 samples.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        mmd_weight: Weight of the distance between source and target, at least 0.
        num_kernels: Number of Gaussian kernels, at least 1; each is twice as wide as the last.
        **options: See `SupervisedMethod`.

    Reference:
        Long et al., Learning Transferable Features with Deep Adaptation Networks, ICML 2015,
        arXiv:1502.02791, sec. 3.
        Differs: one layer, that in front of the classifier; the estimate and kernels of `mmd_loss`.
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
        mmd_weight: float = 1.0,
        num_kernels: int = 5,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.mmd_weight = mmd_weight
        self.num_kernels = num_kernels

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss of the labelled images, and the distance of both roles."""
        features, logits = self.features(batch)
        known, samples = batch["labelled"], cells(features)
        ranks = torch.distributed.get_world_size() if several_ranks() else 1
        most = max(1, _MOST // (len(samples) * ranks))
        if samples.shape[1] > most:
            drawn = torch.Generator().manual_seed(self.global_step)  # the same on each rank
            samples = samples[:, torch.randperm(samples.shape[1], generator=drawn)[:most]]
        source, target = by_role(samples, known)
        return {
            "supervised": self.task.loss(logits[known], batch["target"][known]),
            "mmd": self.mmd_weight * mmd_loss(source, target, self.num_kernels),
        }
