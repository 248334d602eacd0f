"""Two stages: classes aligned by their centroids, then labels of what that has taught."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import adversarial_loss, reversed_gradient
from domainnorm.losses.precision import in_float32
from domainnorm.methods.base import Batch
from domainnorm.methods.dann import create_discriminator, ramp
from domainnorm.methods.frozen import FrozenStart
from domainnorm.methods.heads import num_features
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import by_role, cells, joined, split
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class DSBN2(SupervisedMethod):
    """Domain-specific batch normalization as published: adversarial training, then self-training.

    In the first share of training (MSTN) the loss is ``L_supervised(source) + λ (domain_weight ·
    BCE(D(GRL(f))) + centroid_weight · mean (c_source - c_target)²)``: centroids (K, F) of the
    features of each class follow those of the batches, of target images by the classes predicted
    for them. Then the network is copied, and goes on with ``L_supervised(source) + target_weight ·
    CE(target, ŷ)`` where ``ŷ = argmax ((1 - λ) z_copy + λ z)`` of logits in evaluation mode. In
    each stage ``λ = 2 / (1 + exp(-gamma s)) - 1`` at the share s of it that is done.

    Each image has the rows of its own domain: with norm ``dsbn`` this is the published network.

    Args:
        model: The network.
        task: Classification.
        roles: Source and target domains.
        first_stage: Share of training in the first stage, in (0, 1]; 1 is MSTN alone.
        domain_weight: Weight of the discriminator's loss, at least 0.
        centroid_weight: Weight of the distance between centroids, at least 0.
        decay: Decay of the moving average of centroids, in [0, 1).
        target_weight: Weight of the target loss in the second stage, at least 0.
        gamma: Steepness of λ, at least 0.
        hidden: Units of each of the two hidden layers of the discriminator.
        **options: See `SupervisedMethod`.

    Reference:
        Chang et al., Domain-Specific Batch Normalization for Unsupervised Domain Adaptation, CVPR
        2019, arXiv:1906.03950, sec. 4; Xie et al., Learning Semantic Representations for
        Unsupervised Domain Adaptation (MSTN), ICML 2018, eq. 7 and alg. 1.
        Differs: one training with one schedule, the second stage goes on from the weights of the
        first, whose last state is its teacher, not the best one by the target's labels; one
        discriminator and one pair of centroids for all sources and all targets.
    """

    labelled: str = "source"
    unlabelled: str = "target"
    starts_from: str = "backbone"
    balance: str = "role"
    tasks: tuple[str, ...] = ("classification",)
    source_centroids: Tensor
    target_centroids: Tensor

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        first_stage: float = 0.5,
        domain_weight: float = 0.1,
        centroid_weight: float = 1.0,
        decay: float = 0.7,
        target_weight: float = 1.0,
        gamma: float = 10.0,
        hidden: int = 1024,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.first_stage = first_stage
        self.domain_weight = domain_weight
        self.centroid_weight = centroid_weight
        self.decay = decay
        self.target_weight = target_weight
        self.gamma = gamma
        self.discriminator = create_discriminator(num_features(model), hidden)
        self.first = FrozenStart(model, masks=False)
        for role in ("source", "target"):
            centroids = torch.zeros(len(task.class_names), num_features(model))
            self.register_buffer(f"{role}_centroids", centroids)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Those of the stage that the share of training belongs to."""
        if self.progress < self.first_stage:
            return self._aligned(batch, ramp(self.progress / self.first_stage, self.gamma))
        self.first.take(self.model)
        done = (self.progress - self.first_stage) / (1 - self.first_stage)
        return self._taught(batch, ramp(done, self.gamma))

    def _aligned(self, batch: Batch, weight: float) -> dict[str, Tensor]:
        features, logits = self.features(batch)
        known, label = batch["labelled"], batch["target"].clone()
        label[~known] = self._predicted(split(batch)[1]).argmax(1)
        seen = reversed_gradient(cells(features), 1.0)
        domain = adversarial_loss(*by_role(self.discriminator(seen), known))
        every, labels, of_source = joined(features), joined(label), joined(known.int()) > 0
        every, labels, of_source = (one[labels >= 0] for one in (every, labels, of_source))
        source = followed(self.source_centroids, every[of_source], labels[of_source], self.decay)
        target = followed(self.target_centroids, every[~of_source], labels[~of_source], self.decay)
        self.source_centroids.copy_(source.detach())
        self.target_centroids.copy_(target.detach())
        return {
            "supervised": self.task.loss(logits[known], batch["target"][known]),
            "domain": weight * self.domain_weight * domain,
            "centroids": weight * self.centroid_weight * (source - target).square().mean(),
        }

    def _taught(self, batch: Batch, weight: float) -> dict[str, Tensor]:
        logits, known = self.outputs(batch), batch["labelled"]
        target = split(batch)[1]
        with torch.no_grad():
            told = self.outputs(target, model=self.first.model)
        label = ((1 - weight) * told + weight * self._predicted(target)).argmax(1)
        # Several processes wait for gradients of all that learns, though these are 0 now.
        idle = torch.stack([part.sum() for part in self.discriminator.parameters()]).sum() * 0.0
        return {
            "supervised": self.task.loss(logits[known], batch["target"][known]) + idle,
            "target": self.target_weight * self.task.loss(logits[~known], label),
        }

    @torch.no_grad()
    def _predicted(self, batch: Batch) -> Tensor:
        """Logits of a batch in evaluation mode, under running moments."""
        self.model.eval()
        logits = self.outputs(batch)
        self.model.train()
        return logits


@in_float32
def followed(former: Tensor, features: Tensor, label: Tensor, decay: float) -> Tensor:
    """Centroids ``decay · former + (1 - decay) · mean`` of classes in a batch, others as they were.

    Args:
        former: (K, F).
        features: (N, F).
        label: Classes (N,), ``0 .. K - 1``.
        decay: Weight of the former ones.
    """
    member = torch.nn.functional.one_hot(label, len(former)).to(features)  # (N, K)
    count = member.sum(0)[:, None]
    mean = member.T @ features / count.clamp(min=1)
    return torch.where(count > 0, decay * former + (1 - decay) * mean, former)
