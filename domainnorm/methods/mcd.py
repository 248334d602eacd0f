"""Two classifiers that disagree where target images are far from the source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.losses import discrepancy_loss
from domainnorm.methods.base import Batch
from domainnorm.methods.heads import heads_of, num_features
from domainnorm.methods.reestimation import kept_moments
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import split
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class MCD(SupervisedMethod):
    """Two classifiers seek target images on which they disagree; the features make them agree.

    Each batch has three kinds of steps, with ``d`` the `discrepancy_loss` of the two classifiers:

    - A: all of it minimizes ``L_supervised`` of both classifiers on the source;
    - B: the classifiers alone minimize that, less ``discrepancy_weight · d`` on the target;
    - C: the network without them minimizes ``discrepancy_weight · d`` on the target,
      ``generator_steps`` times.

    The network's own head gives the mean of both classifiers' logits, and a second, linear one half
    of their difference: ``head + apart`` and ``head - apart``. What is validated, tested and saved
    is thus their mean at any time, one network of the usual size. Running moments follow each image
    once a batch, in A and in the first of C.

    Args:
        model: The network.
        task: Classification or segmentation.
        roles: Source and target domains.
        discrepancy_weight: Weight of the discrepancy d, at least 0.
        generator_steps: Steps C per batch, at least 1.
        **options: See `SupervisedMethod`.

    Reference:
        Saito et al., Maximum Classifier Discrepancy for Unsupervised Domain Adaptation, CVPR 2018,
        arXiv:1712.02560, sec. 3.
        Differs: classifiers of one layer, written as mean and half difference (gradient steps with
        the rate lr are those of two classifiers with 2 lr); no term for balanced classes, which
        the authors' programs have for some data; the optimizer and schedule of the recipe.
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
        discrepancy_weight: float = 1.0,
        generator_steps: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.automatic_optimization = False
        self.discrepancy_weight = discrepancy_weight
        self.generator_steps = generator_steps
        self.apart = nn.Linear(num_features(model), len(task.class_names))

    def optimized(self) -> list[Iterable[nn.Parameter]]:
        """The network without classifiers, and these."""
        heads = [*heads_of(self.model), self.apart]
        classifiers = [parameter for head in heads for parameter in head.parameters()]
        own = set(classifiers)
        return [[p for p in self.parameters() if p not in own], classifiers]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Steps A, B and C; the supervised loss of A, and the last discrepancy."""
        source, target = split(batch)
        supervised = self._supervised(source)
        self.step(supervised)
        with kept_moments(self.model):
            self.step(self._supervised(source) - self._discrepancy(target), 1)
        discrepancy = self._discrepancy(target)
        self.step(discrepancy, 0)
        for _ in range(self.generator_steps - 1):
            with kept_moments(self.model):
                discrepancy = self._discrepancy(target)
                self.step(discrepancy, 0)
        return {"supervised": supervised.detach(), "discrepancy": discrepancy.detach()}

    def classified(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, K, ...) of both classifiers."""
        features, mean = self.features(batch)
        half = self.apart(features.movedim(1, -1)).movedim(-1, 1)
        if half.ndim > 2:
            half = F.interpolate(half, mean.shape[2:], mode="bilinear")
        return mean + half, mean - half

    def _supervised(self, batch: Batch) -> Tensor:
        losses = [self.task.loss(logits, batch["target"]) for logits in self.classified(batch)]
        return torch.stack(losses).sum()

    def _discrepancy(self, batch: Batch) -> Tensor:
        return self.discrepancy_weight * discrepancy_loss(*self.classified(batch))
