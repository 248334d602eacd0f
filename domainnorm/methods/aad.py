"""Predictions like those of the nearest target images, and unlike those of the others."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses.precision import in_float32
from domainnorm.methods.bank import Bank, describe
from domainnorm.methods.base import Batch
from domainnorm.methods.heads import num_features
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import joined
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class AaD(SupervisedMethod):
    """Adapt the source model without source images: predictions of near images attract each other.

    ``L = -mean_n Σ_{m near n} p_n · q_m + α mean_n Σ_{m ≠ n} p_n · p_m`` with the K nearest images
    by the cosine of features, whose predictions q are those of when they were last seen, the other
    images m of the batch, and ``α = (1 + 10 s)^-beta`` at the share s of training. Features and
    predictions of all target images are kept by their index, first those of the source model.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        lr: Peak learning rate.
        neighbours: K, number of nearest images, at least 1; all images if there are fewer.
        beta: How fast images of a batch stop to repel each other, at least 0; 0 never stops.
        **options: See `SupervisedMethod`.

    Reference:
        Yang et al., Attracting and Dispersing, NeurIPS 2022, arXiv:2205.04183, eq. 5 and alg. 1.
        Differs: the optimizer and schedule of the recipe, one rate for all layers; an image is
        told from its neighbours by its index, not as the nearest of all, and is not pushed away
        from its own copy in a batch; several targets have one bank.
    """

    unlabelled: str = "target"
    labelled: str = ""
    starts_from: str = "source_only"
    tasks: tuple[str, ...] = ("classification",)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 3e-4,
        neighbours: int = 5,
        beta: float = 5.0,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, **options)
        self.neighbours = neighbours
        self.beta = beta
        self.feature = Bank(num_features(model))
        self.probability = Bank(len(task.class_names))

    def on_train_epoch_start(self) -> None:
        """What the source model makes of all target images; a resumed run has its own banks."""
        if self.current_epoch == 0:
            self._remember(*describe(self))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Predictions of neighbours attract, those of the other images of all ranks disperse."""
        features, logits = self.features(batch)
        index, features, logits = joined(batch["index"]), joined(features), joined(logits)
        self._remember(index, features, logits)
        known = self.probability.values.sum(1) > 0  # others were never written
        near = nearest(self.feature.read(index), self.feature.values, known, index, self.neighbours)
        told = self.probability.values[near]
        alpha = (1 + 10 * self.progress) ** -self.beta
        return {
            "attract": attraction(logits, told),
            "disperse": alpha * dispersion(logits, index),
        }

    def _remember(self, index: Tensor, features: Tensor, logits: Tensor) -> None:
        self.feature.write(index, F.normalize(features.detach().to(self.feature.values), dim=1))
        self.probability.write(index, logits.detach().to(self.probability.values).softmax(1))


@in_float32
def nearest(features: Tensor, bank: Tensor, known: Tensor, index: Tensor, count: int) -> Tensor:
    """Positions (N, K) in a bank of those most like each of some images, itself left out.

    Args:
        features: (N, F), of length 1.
        bank: (M, F), of length 1.
        known: Which of the bank have been written, (M,).
        index: Positions of the images in the bank, (N,).
        count: K; as many as there are where these are fewer.
    """
    alike = (features @ bank.T).masked_fill(~known, -torch.inf)
    alike.scatter_(1, index[:, None], -torch.inf)
    return alike.topk(min(count, int(known.sum()) - 1), dim=1).indices


@in_float32
def attraction(logits: Tensor, told: Tensor) -> Tensor:
    """``-mean_n Σ_k p_n · told_nk`` of predictions (N, K) and those of neighbours (N, M, K)."""
    return -(logits.softmax(1)[:, None] * told).sum((1, 2)).mean()


@in_float32
def dispersion(logits: Tensor, index: Tensor) -> Tensor:
    """``mean_n Σ_m p_n · p_m`` over the other images of a batch, told apart by ``index`` (N,)."""
    probability = logits.softmax(1)
    others = index[:, None] != index
    return ((probability @ probability.T) * others).sum(1).mean()
