"""A stream learned by sure and diverse samples, by a model that stays between two."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import entropies
from domainnorm.losses.precision import in_float32
from domainnorm.methods.base import Batch
from domainnorm.methods.cotta import varied
from domainnorm.methods.online_entropy import OnlineEntropy
from domainnorm.methods.reestimation import kept_moments
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import chosen
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class ROID(OnlineEntropy):
    """Predict a stream, and learn from confident, diverse images while staying near the source.

    With p the probabilities of an image, p̄ their moving average (0.9) over batches, ``d = 1 -
    cos(p̄, p)`` and ``c = -H(p)``, both brought to [0, 1] within the batch, images with d of at
    least its mean are kept and weigh ``w = exp(d c / temperature)``. The step is on ``(1/N) Σ w
    (SLR(p) + SCE(p', p))``, p' of another view, ``SLR = -Σ_k p_k log(p_k / (1 - p_k))`` with p of
    at most 0.99, SCE the mean of both cross-entropies. Then ``θ ← decay · θ + (1 - decay)
    θ_source``. Predictions, those before the step, are multiplied by the mean prediction of the
    batch, smoothed.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        lr: Learning rate of SGD with Nesterov momentum 0.9.
        temperature: Temperature of the weights, above 0.
        decay: Weight of the model in its mean with the source model after each step, in [0, 1).
        prior: Multiply predictions by the mean prediction of the batch.
        **options: See `OnlineEntropy`.

    Reference:
        Marsden et al., Universal Test-time Adaptation through Weight Ensembling, Diversity
        Weighting, and Prior Correction, WACV 2024, arXiv:2306.00650, and the authors' program.
        Differs: the prior multiplies probabilities, in the authors' program logits, whose sign
        turns it round; where all images of a batch are equal, d and c are 0, there not a number;
        views as those of `CoTTA`.
    """

    tasks: tuple[str, ...] = ("classification",)
    remembered: tuple[str, ...] = ("mean",)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 2.5e-4,
        temperature: float = 0.3333,
        decay: float = 0.99,
        prior: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, **options)
        self.temperature = temperature
        self.kept_share = decay
        self.prior = prior
        self.mean = torch.ones(len(task.class_names)) / len(task.class_names)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum, as in the authors' program."""
        return torch.optim.SGD(self.adapted, lr=self.lr, momentum=0.9, nesterov=True)

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """The mean prediction starts uniform."""
        super().start_stream(domains)
        self.mean = torch.full_like(self.mean, 1 / len(self.mean))

    def adapt(self, batch: Batch) -> Tensor:
        """Logits of one batch, and a step on the images that are kept."""
        logits = self.outputs(batch)
        told = logits.detach().softmax(1)
        unlike = scaled(1 - F.cosine_similarity(self.mean.to(told)[None], told, dim=1))
        kept = unlike >= unlike.mean()
        weight = (unlike * scaled(-entropies(logits.detach())) / self.temperature).exp()[kept]
        self.mean = 0.9 * self.mean.to(told) + 0.1 * told.mean(0)
        with kept_moments(self.model):
            part = chosen(batch, kept)
            view = self.outputs({**part, "image": varied(part["image"])})
        loss = likelihood_ratio(logits[kept]) + symmetric_cross_entropy(view, logits[kept])
        self.descend((weight * loss).sum() / len(logits))
        with torch.no_grad():
            for parameter, former in zip(self.adapted, self.start, strict=True):
                parameter.lerp_(former, 1 - self.kept_share)
        return logits.log_softmax(1) + smoothed_prior(told).log() if self.prior else logits


def scaled(values: Tensor) -> Tensor:
    """Values (N,) between 0 and 1; zeros where all are equal."""
    least, most = values.min(), values.max()
    return (values - least) / (most - least).clamp(min=torch.finfo(values.dtype).tiny)


@in_float32
def likelihood_ratio(logits: Tensor) -> Tensor:
    """``-Σ_k p_k log(p_k / (1 - p_k) + 1e-5)``, p at most 0.99, of each sample (N, K), (N,)."""
    p = logits.softmax(1).clamp(max=0.99)
    ratio: Tensor = (p * (p / (1 - p) + 1e-5).log()).sum(1)
    return -ratio


@in_float32
def symmetric_cross_entropy(one: Tensor, other: Tensor) -> Tensor:
    """Mean of the cross-entropies of each to the other, of logits (N, K), (N,)."""
    first = (other.softmax(1) * one.log_softmax(1)).sum(1)
    second = (one.softmax(1) * other.log_softmax(1)).sum(1)
    mean: Tensor = -(first + second) / 2
    return mean


def smoothed_prior(told: Tensor) -> Tensor:
    """Mean prediction of a batch (N, K), less sure the smaller it is: (K,)."""
    mean = told.mean(0)
    smooth = max(1 / told.shape[0], 1 / told.shape[1]) / mean.max()
    prior: Tensor = (mean + smooth) / (1 + smooth * told.shape[1])
    return prior
