"""Sure predictions on the target, with as much of each class as there should be."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.errors import DomainNormError
from domainnorm.losses.precision import in_float32
from domainnorm.methods.base import Batch
from domainnorm.methods.frozen import FrozenStart
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import joined
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task

_LEAST = 0.01  # share below which a class is not weighed more


@register
class SFDA(SupervisedMethod):
    """Adapt the source model without source images: minimize entropy, keep the class shares.

    ``L = mean over pixels of Σ_k w_k (-p_k log p_k) + prior_weight · mean_n KL(r_n ‖ π_n)``: r_n,
    (K,), is the mean of the predictions p over the pixels of image n, π_n what it should be, and
    ``w_k ∝ 1 / max(mean_n π_nk, 0.01)`` of sum 1. Entropy alone is least for one class everywhere.
    Where images have one class each, the shares are those of a batch.

    Args:
        model: The source model.
        task: Segmentation or classification.
        roles: Source and target domains.
        lr: Peak learning rate.
        prior: π, the share of each class in all images: K numbers above 0 with sum 1, from source
            labels or from anatomy. Null takes the shares that a frozen copy of the source model
            predicts in the same image.
        prior_weight: Weight of the divergence from π, at least 0.
        **options: See `SupervisedMethod`.

    Raises:
        DomainNormError: ``prior`` of another length or sum, or with a share of 0 or less.

    Reference:
        Bateson et al., Source-Relaxed Domain Adaptation for Image Segmentation, MICCAI 2020,
        arXiv:2005.03697, eq. 1 to 3.
        Differs: there a further network, trained on source images, estimates the shares in an
        image; the floor of 0.01; the optimizer and schedule of the recipe.
    """

    unlabelled: str = "target"
    labelled: str = ""
    starts_from: str = "source_only"
    tasks: tuple[str, ...] = ("segmentation", "classification")
    mean_prior: Tensor

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 3e-4,
        prior: list[float] | None = None,
        prior_weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, **options)
        count = len(task.class_names)
        if prior is not None:
            _check(prior, count)
        self.prior_weight = prior_weight
        self.source = FrozenStart(model, masks=False) if prior is None else None
        self.register_buffer("mean_prior", torch.tensor(prior or [1 / count] * count))

    def on_train_epoch_start(self) -> None:
        """The source model is kept, and asked once for the mean shares in all target images."""
        if self.source is None or self.current_epoch > 0:
            return
        self.source.take(self.model)
        network, found = self.source.model, []
        with torch.no_grad():
            for batch in self.sweep():
                given = batch["image"], batch["domain"]
                embedding = network.embedding_of(batch)
                probability = self.task.predict(network, *given, embedding=embedding).softmax(1)
                found.append(
                    probability.flatten(2).mean(2) if probability.ndim > 2 else probability
                )
        self.mean_prior.copy_(torch.cat(found).mean(0))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted entropy, and the divergence of shares from what they should be."""
        logits, prior = self.outputs(batch), self.mean_prior[None]
        if self.source is not None:
            with torch.no_grad():
                prior = shares(self.outputs(batch, model=self.source.model))
        return {
            "entropy": weighted_entropy(logits, self.mean_prior),
            "prior": self.prior_weight * divergence(shares(logits), prior),
        }


def _check(prior: list[float], count: int) -> None:
    wrong = len(prior) != count or min(prior) <= 0 or not math.isclose(sum(prior), 1, abs_tol=1e-3)
    if wrong:
        raise DomainNormError(
            f"method.prior: {prior}, expected a share above 0 for each of the {count} classes, 1 "
            "together; `domainnorm data check` says those of the source's labels"
        )


@in_float32
def shares(logits: Tensor) -> Tensor:
    """Mean predictions of each mask (N, K), or of all images of all ranks together (1, K)."""
    probability = logits.softmax(1)
    if logits.ndim > 2:
        return probability.flatten(2).mean(2)
    return joined(probability).mean(0, keepdim=True)


@in_float32
def weighted_entropy(logits: Tensor, prior: Tensor) -> Tensor:
    """Mean over samples of ``Σ_k w_k (-p_k log p_k)``, the rarer the class by ``prior``, the more.

    Args:
        logits: (N, K) or (N, K, H, W).
        prior: Share of each class, (K,).
    """
    weight = 1 / prior.clamp(min=_LEAST)
    log_probability = logits.log_softmax(1)
    entropy: Tensor = -(log_probability.exp() * log_probability).movedim(1, -1)
    weighted: Tensor = entropy @ (weight / weight.sum())
    return weighted.mean()


@in_float32
def divergence(found: Tensor, prior: Tensor) -> Tensor:
    """Mean of ``KL(found ‖ prior)`` over rows of shares (N, K), in nats."""
    apart: Tensor = torch.special.xlogy(found, found) - found * prior.clamp(min=1e-10).log()
    return apart.sum(1).mean()
