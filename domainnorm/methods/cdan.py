"""Features and predictions that together tell no domain, by an adversary."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.losses import adversarial_loss, reversed_gradient
from domainnorm.methods.base import Batch
from domainnorm.methods.dann import create_discriminator, ramp
from domainnorm.methods.heads import num_features
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import by_role, cells
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class CDAN(SupervisedMethod):
    """`DANN` with a discriminator that sees features combined with class predictions.

    ``L = L_supervised(source) + domain_weight · BCE(D(GRL(T(f, p))))`` with features f, predicted
    probabilities p, which take no gradient, and ``T(f, p) = f ⊗ p``, of size F · K. Where that is
    above d = ``map_size``, ``T(f, p) = (R f ⊙ S p) / √d`` of size d, R and S standard normal, drawn
    once and stored. With ``entropy`` (CDAN+E) samples weigh
    ``1 + exp(-H(p))`` within their role. Of masks, f and p are means over each cell of a grid of
    8 × 8. The reversed gradient is ramped up as in `DANN`.

    Args:
        model: The network.
        task: Classification or segmentation.
        roles: Source and target domains.
        domain_weight: Weight of the discriminator's loss, at least 0.
        entropy: Give confident predictions more weight (CDAN+E).
        gamma: Steepness of the ramp, at least 0; 0 turns the adversarial gradient off.
        hidden: Units of each of the two hidden layers of the discriminator.
        map_size: d, largest input size of the discriminator, at least 1.
        **options: See `SupervisedMethod`.

    Reference:
        Long et al., Conditional Adversarial Domain Adaptation, NeurIPS 2018, arXiv:1705.10667,
        sec. 3.
        Differs: a random map has the size from which on it is taken, 4096 (the paper's has 1024);
        weights are divided by their mean within each role, as in the authors' program, and take no
        gradient, as in the Transfer-Learning-Library; the optimizer and schedule of the recipe, one
        rate for all layers.
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
        domain_weight: float = 1.0,
        entropy: bool = False,
        gamma: float = 10.0,
        hidden: int = 1024,
        map_size: int = 4096,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.domain_weight = domain_weight
        self.entropy = entropy
        self.gamma = gamma
        size, num_classes = num_features(model), len(task.class_names)
        is_random = size * num_classes > map_size
        self.random_map = RandomMap(size, num_classes, map_size) if is_random else None
        self.discriminator = create_discriminator(min(size * num_classes, map_size), hidden)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss of the labelled images, and the discriminator's of all."""
        features, logits = self.features(batch)
        known, probability = batch["labelled"], cells(logits.detach().softmax(1))
        pair = self.pair(cells(features), probability)
        told = self.discriminator(reversed_gradient(pair, ramp(self.progress, self.gamma)))
        weights: tuple[Tensor, ...] = ()
        if self.entropy:
            entropy = torch.special.entr(probability).sum(-1, keepdim=True)
            weights = by_role(1 + torch.exp(-entropy), known)
        return {
            "supervised": self.task.loss(logits[known], batch["target"][known]),
            "domain": self.domain_weight * adversarial_loss(*by_role(told, known), *weights),
        }

    def pair(self, features: Tensor, probability: Tensor) -> Tensor:
        """T of features (N, M, F) and probabilities (N, M, K), (N, M, F · K or d)."""
        if self.random_map is not None:
            mapped: Tensor = self.random_map(features, probability)
            return mapped
        return (features[..., :, None] * probability[..., None, :]).flatten(-2)


class RandomMap(nn.Module):
    """``(R f ⊙ S p) / √d``, in expectation over R and S with the inner products of f ⊗ p.

    R and S are buffers: they move with the method, and a checkpoint holds them; drawn anew by a
    resumed run, they would be another input for the same discriminator.

    Args:
        num_features: F.
        num_classes: K.
        size: d.
    """

    of_features: Tensor
    of_classes: Tensor

    def __init__(self, num_features: int, num_classes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("of_features", torch.randn(num_features, size))
        self.register_buffer("of_classes", torch.randn(num_classes, size))

    def forward(self, features: Tensor, probability: Tensor) -> Tensor:
        """(..., F) and (..., K) to (..., d)."""
        size = self.of_features.shape[1]
        return (features @ self.of_features) * (probability @ self.of_classes) / math.sqrt(size)
