"""A stream whose features are centred."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.methods.base import Batch
from domainnorm.methods.heads import head_of
from domainnorm.methods.roles import Roles
from domainnorm.methods.without_gradients import WithoutGradients, features_changed
from domainnorm.norms.kernels.partition import by_row
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class NEO(WithoutGradients):
    """Predict a stream from centred features: subtract their mean over the stream so far.

    ``logits = W (z - m) + b`` with features z in front of the classifier. ``m`` is their mean over
    all images of this row so far, including the batch. It needs no gradient, no second pass and
    only a vector of memory, and works with single images.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        memory: Length of the mean in images, at least 1: once this many were seen, a new image
            weighs ``1 / memory``. Null takes the mean of all.
        **options: See `OnlineMethod`.

    Reference:
        Murphy et al., NEO: No-Optimization Test-Time Adaptation through Latent Re-Centering, ICLR
        2026, arXiv:2510.05635, and the authors' program.
        Differs: with ``memory`` the mean forgets by number of images, and starts as their mean; the
        continual form there starts at 0 and weighs each batch 0.1.
    """

    tasks: tuple[str, ...] = ("classification",)
    remembered: tuple[str, ...] = ("means", "counts")

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        memory: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        head_of(model)
        self.memory = memory
        self.means: dict[int, list[Tensor]] = {}  # of each head, by row of the images
        self.counts: dict[int, int] = {}

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """No features yet."""
        super().start_stream(domains)
        self.means, self.counts = {}, {}

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Tensor:
        """Logits of one batch, whose features count in the means that they lose."""
        members = by_row(batch["domain"])
        weights = {row: self._weight(row, int(own.sum())) for row, own in members.items()}

        def centred(position: int, features: Tensor) -> Tensor:
            found = torch.empty_like(features)
            for row, own in members.items():
                mean, means = features[own].mean(0), self.means.setdefault(row, [])
                if position < len(means):
                    mean = torch.lerp(means[position].to(mean), mean, weights[row])
                    means[position] = mean
                else:
                    means.append(mean)
                found[own] = features[own] - mean
            return found

        with features_changed(self.model, centred):
            return self.outputs(batch)

    def _weight(self, row: int, size: int) -> float:
        """That of so many new images in the mean of their row, which count from now on."""
        count = self.counts[row] = self.counts.get(row, 0) + size
        weight = size / count
        return weight if self.memory is None else max(weight, min(1.0, size / self.memory))
