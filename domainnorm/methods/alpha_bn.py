"""A stream normalized by moments between those of the source and its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConversionError
from domainnorm.methods.base import Batch
from domainnorm.methods.reestimation import between
from domainnorm.methods.roles import Roles
from domainnorm.methods.without_gradients import WithoutGradients
from domainnorm.norms.kernels.per_sample import moments
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class AlphaBN(WithoutGradients):
    """Predict a stream under norms whose moments are those of the source and of the stream, mixed.

    ``mean = (1 - a) mean_source + a mean_stream`` and the same of variances, in every layer with
    running moments, ``a = n / (n + prior)`` for n images: those of the batch, or of all so far.
    ``prior`` 0 is adaptive batch normalization, by batches or as running moments. The row of the
    target keeps the last moments, which is what `predict` normalizes by afterwards.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        prior: Images that the source's moments count as, at least 0.
        share: a itself, in [0, 1], whatever the number of images; None for ``prior``.
        memory: Images whose moments count beside the source's: those of the ``batch``, or all so
            far of this ``stream``.

    Raises:
        ConversionError: A model without running moments.

    Reference:
        Schneider et al., Improving robustness against common corruptions by covariate shift
        adaptation, NeurIPS 2020, arXiv:2006.16971, eq. 1; You et al., Test-time batch statistics
        calibration, 2021, arXiv:2110.04065, eq. 2 (``share``).
        Differs: variances are those of the images (public programs take the unbiased ones of the
        batch); moments of a ``stream`` are those of the whole set of its images.
    """

    needs: str = "moments"
    remembered: tuple[str, ...] = ("sums", "count")

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        prior: float = 16.0,
        share: float | None = None,
        memory: Literal["batch", "stream"] = "batch",
    ) -> None:
        super().__init__(model, task, roles)
        self._tracked = [
            norm.statistics for norm in model.norms() if isinstance(norm.statistics, RunningMoments)
        ]
        if not self._tracked:
            raise ConversionError(
                "alpha_bn: this model has no running moments (no norm has batch or domain "
                "statistics); take a backbone with batch norms, or 'neo', which needs none"
            )
        self.prior, self.share, self.memory = prior, share, memory
        self.sums: dict[int, Tensor] = {}  # mean and mean square (2, C), by the layer's position
        self.count = 0
        self._start: list[Tensor] = []
        self._row, self._weight = 0, 1.0

    @torch.no_grad()
    def start_stream(self, domain: str) -> None:
        """Moments of the source, as the row of ``domain`` has them."""
        super().start_stream(domain)
        self._row, self.count, self.sums = self.model.domain_names.index(domain), 0, {}
        found = [torch.stack([one.running_mean, one.running_var]) for one in self._tracked]
        self._start = self._start or found  # rows of all domains have moved with the one before

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Tensor:
        """Logits of one batch, each layer under moments that the batch counts in."""
        size = len(batch["image"])
        if self.memory == "batch":
            self.count, self.sums = 0, {}
        self.count += size
        self._weight = size / self.count
        with self._mixing():
            return self.outputs(batch)

    @contextmanager
    def _mixing(self) -> Iterator[None]:
        """Each layer gets its moments from what reaches it, just before it normalizes."""
        with ExitStack() as stack:
            for number, one in enumerate(self._tracked):
                hook = one.register_forward_pre_hook(partial(self._mix, number))
                stack.callback(hook.remove)
            yield

    def _mix(self, number: int, statistics: RunningMoments, inputs: tuple[Any, ...]) -> None:
        mean, var = (moment.double() for moment in moments(inputs[0]))
        added = torch.stack([mean, var + mean.square()], 1).mean(0)  # of all these images
        former = self.sums.get(number, added)
        first, second = self.sums[number] = torch.lerp(former, added, self._weight)
        row = self._row if len(statistics.running_mean) > 1 else 0
        mean, var = self._start[number][:, row].double()
        share = self.count / (self.count + self.prior) if self.share is None else self.share
        new = first, (second - first.square()).clamp(min=0)
        for running, moment in zip(
            (statistics.running_mean, statistics.running_var),
            between((mean, var), new, share, statistics.eps),
            strict=True,
        ):
            running[row] = moment.to(running)
