"""Features that tell no domain, by an adversary."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.losses import adversarial_loss, reversed_gradient
from domainnorm.methods.base import Batch
from domainnorm.methods.heads import num_features
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import by_role, cells
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


def create_discriminator(num_inputs: int, hidden: int) -> nn.Module:
    """A network (..., F) -> (..., 1) with two hidden layers, for logits of "this is source"."""
    return nn.Sequential(
        nn.Linear(num_inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 1),
    )


def ramp(progress: float, gamma: float) -> float:
    """Weight of the reversed gradient, ``2 / (1 + exp(-gamma p)) - 1`` at the share p, in [0, 1).

    A function of the share of training alone: a resumed run goes on where it was, which a counter
    of steps outside the checkpoint would not.
    """
    return 2 / (1 + math.exp(-gamma * progress)) - 1


@register
class DANN(SupervisedMethod):
    """Supervised loss on the source, and features that hide the domain from a discriminator.

    ``L = L_supervised(source) + domain_weight · BCE(D(GRL(f)))`` on the features f in front of the
    classifier; of masks, on those in front of the segmentation head, averaged over each cell of a
    grid of 8 × 8. The gradient that reaches the network is reversed and ramped up:
    ``2 / (1 + exp(-gamma p)) - 1`` at the share p of training. The rows of its own domain normalize
    each image; the discriminator sees the remaining difference.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        domain_weight: Weight of the discriminator's loss, at least 0.
        gamma: Steepness of the ramp, at least 0; 0 turns the adversarial gradient off.
        hidden: Units of each of the two hidden layers of the discriminator.
        **options: See `SupervisedMethod`.

    Reference:
        Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016, arXiv:1505.07818,
        eq. 18 and sec. 5.2.2.
        Differs: the optimizer and schedule of the recipe; one rate for all layers.
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
        domain_weight: float = 1.0,
        gamma: float = 10.0,
        hidden: int = 1024,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.domain_weight = domain_weight
        self.gamma = gamma
        self.discriminator = create_discriminator(num_features(model), hidden)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss of the labelled images, and the discriminator's of all."""
        features, logits = self.features(batch)
        known = batch["labelled"]
        seen = reversed_gradient(cells(features), ramp(self.progress, self.gamma))
        told = by_role(self.discriminator(seen), known)
        return {
            "supervised": self.task.loss(logits[known], batch["target"][known]),
            "domain": self.domain_weight * adversarial_loss(*told),
        }
