"""A stream whose neighbouring images are taken to be of one class."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses.precision import in_float32
from domainnorm.methods.base import Batch
from domainnorm.methods.heads import head_of
from domainnorm.methods.roles import Roles
from domainnorm.methods.without_gradients import WithoutGradients
from domainnorm.registry import register
from domainnorm.tasks import Task

_ENOUGH = 1e-8  # relative change of the objective


@register
class LAME(WithoutGradients):
    """Predict each batch of a stream so that images with similar features get similar classes.

    Of probabilities p and affinities W of the features of a batch, the assignments Z, with rows
    that are distributions, minimize ``Σ_n KL(Z[n] ‖ p[n]) - ½ Σ_nm W[n, m] Z[n] · Z[m]`` by
    ``Z ← softmax(log p + W Z)``, from ``Z = p`` on. The model does not change; logits are
    ``log Z``. **For ordered streams**, whose batches have few classes: LAME predicts fewer classes
    than a batch has if it has many. Single images keep their prediction.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        affinity: ``knn``: 1 for the nearest ``neighbours``, mean of both directions; ``rbf``:
            ``exp(-||z[n] - z[m]||² / (2 s²))`` of features of length 1, s the mean distance of an
            image to its ``neighbours``-th neighbour; ``linear``: ``z[n] · z[m]``.
        neighbours: Number of neighbours, without the image itself, at least 1.
        iterations: Most iterations, at least 1; they end early once the objective changes by less
            than 1e-8 of itself.
        **options: See `OnlineMethod`.

    Reference:
        Boudiaf et al., Parameter-free Online Test-time Adaptation, CVPR 2022, arXiv:2201.05718,
        eq. 4 to 6.
        Differs: the authors' program counts the image itself among the neighbours that s is taken
        of, so that the first has s = 0, and leaves ``knn`` asymmetric, for which the iteration is
        not known to converge; its default is ``rbf``, which ends shuffled batches as one class.
    """

    tasks: tuple[str, ...] = ("classification",)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        affinity: Literal["rbf", "knn", "linear"] = "knn",
        neighbours: int = 5,
        iterations: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        head_of(model)
        self.affinity = affinity
        self.neighbours, self.iterations = neighbours, iterations

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Tensor:
        """Log of the assignments of one batch."""
        found = self.features(batch)
        return assignments_of(*found, self.affinity, self.neighbours, self.iterations)


def assignments_of(
    features: Tensor,
    logits: Tensor,
    affinity: str = "knn",
    neighbours: int = 5,
    iterations: int = 100,
) -> Tensor:
    """``log Z`` (N, K) of features (N, F) and logits (N, K); of one image its log-probabilities."""
    if len(features) == 1:
        return logits.log_softmax(1)
    weights = affinities(F.normalize(features, dim=1), affinity, neighbours)
    assigned: Tensor = assignments(logits, weights, iterations)
    return assigned


@in_float32
def affinities(unit: Tensor, kind: str, neighbours: int) -> Tensor:
    """W (N, N) of features of length 1, (N, F), of at least two images; see `LAME`."""
    if kind == "linear":
        return unit @ unit.T
    count = len(unit)
    distance = torch.cdist(unit, unit)
    others = distance + torch.diag(distance.new_full((count,), torch.inf))
    near = others.topk(min(neighbours, count - 1), largest=False)
    if kind == "knn":
        chosen = torch.zeros_like(distance).scatter_(1, near.indices, 1.0)
        return (chosen + chosen.T) / 2
    size = near.values[:, -1].mean().clamp(min=torch.finfo(distance.dtype).tiny ** 0.25)
    return torch.exp(-distance.square() / (2 * size.square()))


@in_float32
def assignments(logits: Tensor, weights: Tensor, iterations: int) -> Tensor:
    """``log Z`` (N, K) of logits (N, K) and affinities (N, N); see `LAME`."""
    told = logits.log_softmax(1)
    found, former = told, math.nan
    for _ in range(iterations):
        attracted = weights @ found.exp()
        found = (told + attracted).log_softmax(1)
        share = found.exp()
        now = float((share * (found - told - attracted)).sum())
        if abs(now - former) <= _ENOUGH * abs(former):
            break
        former = now
    return found
