"""Entropy minimization on a stream, in flat places, that goes back when it collapses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import entropies
from domainnorm.methods.base import Batch
from domainnorm.methods.online_entropy import OnlineEntropy, moved, samples
from domainnorm.methods.reestimation import kept_moments
from domainnorm.methods.roles import Roles
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class SAR(OnlineEntropy):
    """Predict a stream, and minimize the sharpness-aware entropy of reliable samples.

    With H the entropy of a sample and ``E = margin · ln K``: g is the gradient of the mean H of
    samples with ``H < E``; at ``θ + radius · g / ||g||`` the gradient of the mean H of those of
    them that have ``H < E`` there, too, makes the step from θ. Where the moving average (0.9) of
    that entropy falls below ``floor · ln K``, the model has collapsed and goes back to the
    source's.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        lr: Learning rate of SGD with momentum 0.9; take less for batches under 32.
        margin: Entropy from which a sample is unreliable, as a share of ln K, in (0, 1].
        radius: ρ, length of the perturbation of the weights, at least 0.
        floor: Mean entropy below which the model returns to the source's, as a share of ln K, in
            [0, 1); 0 never returns.
        depth: Share of the norm layers, from the input on, that adapt, in (0, 1].
        opinion: Minimize the entropy of opinions, see `opinion_entropies`; reliability is still
            judged by the entropy of predictions.
        **options: See `OnlineMethod`.

    Reference:
        Niu et al., Towards Stable Test-Time Adaptation in Dynamic Wild World, ICLR 2023,
        arXiv:2302.12400, eq. 2 to 6.
        Differs: the floor is 0.2 nats there, which is 0.03 of the largest entropy of 1000 classes:
        of few classes a good model lies below it from the start and went back at each batch. It
        goes back only if the stream began above. ``depth`` stands for "no top layers", which the
        authors' program finds by names of two networks; no step where no sample is reliable (there
        momentum goes on); after going back the average starts anew, and so does momentum.
    """

    remembered: tuple[str, ...] = ("first", "average")

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 2.5e-4,
        margin: float = 0.4,
        radius: float = 0.05,
        floor: float = 0.03,
        depth: float = 0.75,
        opinion: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, depth=depth, **options)
        self.opinion = opinion
        self.reliable = margin * self.most
        self.radius = radius
        self.floor = floor * self.most
        self.first: float | None = None
        self.average: float | None = None

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """No average yet."""
        super().start_stream(domains)
        self.first = self.average = None

    def adapt(self, batch: Batch) -> Tensor:
        """Logits of one batch, and a step by the gradient at the worst place near by."""
        logits = self.outputs(batch)
        told = samples(logits)
        kept = entropies(told).detach() < self.reliable
        if not bool(kept.any()):
            return logits
        first = self.gradients(self.minimized(told[kept]).mean())
        length = torch.stack([one.square().sum() for one in first]).sum().sqrt()
        factor = self.radius / max(float(length), 1e-30)
        moved(self.adapted, first, factor)
        with kept_moments(self.model):
            there = samples(self.outputs(batch))[kept]
        still = entropies(there).detach() < self.reliable
        step = self.gradients(self.minimized(there[still]).mean()) if bool(still.any()) else None
        moved(self.adapted, first, -factor)
        if step is not None:
            pairs = zip(step, self.adapted, strict=True)
            self.descend(torch.stack([(one * p).sum() for one, p in pairs]).sum())
            self._watch(float(entropies(there[still]).detach().mean()))
        return logits

    def _watch(self, entropy: float) -> None:
        """Go back where the average has fallen below the floor."""
        former = entropy if self.average is None else self.average
        self.average = 0.9 * former + 0.1 * entropy
        self.first = entropy if self.first is None else self.first
        if self.average < self.floor <= self.first:
            self.go_back()
            self.average = None
