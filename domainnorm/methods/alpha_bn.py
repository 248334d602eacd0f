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
from domainnorm.methods.reestimation import between, tracked_statistics
from domainnorm.methods.roles import Roles
from domainnorm.methods.without_gradients import WithoutGradients
from domainnorm.norms.kernels.partition import by_row
from domainnorm.norms.kernels.per_sample import raw_moments
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class AlphaBN(WithoutGradients):
    """Predict a stream with a weighted mean of the moments of source and stream.

    ``mean = (1 - a) mean_source + a mean_stream`` and the same of variances, in every layer with
    running moments, ``a = n / (n + prior)`` for n images: those of the batch, or of all so far.
    ``prior`` 0 is adaptive batch normalization, by batches or as running moments. The target's row
    keeps the last moments, and `predict` uses them afterwards.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        prior: Number of images that the source's moments count as, at least 0.
        share: The weight a itself, in [0, 1], for any number of images; null computes it from
            ``prior``. ``unlike`` and ``layers`` weigh the moments by ``prior`` more, the further
            they are from the source's, by channel or by layer, see `between`.
        memory: Images whose moments are used: those of the ``batch``, or all so far of the
            ``stream``; each image counts in the row of its domain.
        **options: See `OnlineMethod`.

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
    tasks: tuple[str, ...] = ("classification", "multilabel", "segmentation")
    remembered: tuple[str, ...] = ("moments.sums", "moments.counts")

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        prior: float = 16.0,
        share: float | Literal["unlike", "layers"] | None = None,
        memory: Literal["batch", "stream"] = "batch",
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.moments = StreamMoments(model, prior, share, whole=memory == "stream")
        if not self.moments.layers:
            raise ConversionError(
                "alpha_bn: this model has no running moments (no norm has batch or domain "
                "statistics); take a backbone with batch norms, or 'neo', which needs none"
            )

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Moments of the source, as the rows have them."""
        super().start_stream(domains)
        self.moments.start()

    def row_opened(self, row: int) -> None:
        """Its moments are mixed with those that it was opened with."""
        self.moments.begin(row)

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Tensor:
        """Logits of one batch, each layer under moments that the batch counts in."""
        with self.moments.counting(batch["domain"]):
            return self.outputs(batch)


class StreamMoments:
    """Running moments of rows that follow a stream; see `AlphaBN` for the rule.

    Args:
        model: Its moments are written just before a layer normalizes by them.
        prior: See `AlphaBN`.
        share: See `AlphaBN`.
        whole: Whether images of earlier batches count.

    Attributes:
        layers: Statistics with running moments; without any, nothing happens.
        sums: Mean and mean square (2, C) of the images so far, by position of the layer and row.
        counts: Their number, by row; of layers with one row for all, row 0 is that.
    """

    def __init__(
        self,
        model: DomainModel,
        prior: float,
        share: float | Literal["unlike", "layers"] | None,
        *,
        whole: bool,
    ) -> None:
        self.model = model
        self.prior, self.share, self.whole = prior, share, whole
        self.layers = tracked_statistics(model)
        self.sums: dict[tuple[int, int], Tensor] = {}
        self.counts: dict[tuple[bool, int], int] = {}
        self._start: list[Tensor] = []
        self._members: dict[bool, dict[int, Tensor]] = {}

    @torch.no_grad()
    def start(self) -> None:
        """No images yet, and the moments of the source."""
        self.counts, self.sums = {}, {}
        self._start = [torch.stack([one.running_mean, one.running_var]) for one in self.layers]

    @torch.no_grad()
    def begin(self, row: int) -> None:
        """No images of this row yet, and the moments that it has now."""
        self.counts.pop((True, row), None)
        for number, one in enumerate(self.layers):
            if one.tracks_domains:
                self.sums.pop((number, row), None)
                moments = torch.stack([one.running_mean[row], one.running_var[row]])
                self._start[number][:, row] = moments

    @contextmanager
    def counting(self, domain: Tensor) -> Iterator[None]:
        """Inside the block a batch of these domains (N,) passes, and counts in the moments."""
        if not self.whole:
            self.counts, self.sums = {}, {}
        self._members = {True: by_row(domain), False: by_row(torch.zeros_like(domain))}
        for own, members in self._members.items():
            for row, chosen in members.items():
                size = int(chosen.sum())
                self.counts[own, row] = self.counts.get((own, row), 0) + size
        with ExitStack() as stack:
            for number, one in enumerate(self.layers):
                hook = one.register_forward_pre_hook(partial(self._mix, number))
                stack.callback(hook.remove)
            yield

    def _mix(self, number: int, statistics: RunningMoments, inputs: tuple[Any, ...]) -> None:
        own = statistics.tracks_domains
        for row, chosen in self._members[own].items():
            # A folded layer sees several rows of each image.
            of_rows = chosen.repeat_interleave(len(inputs[0]) // len(chosen))
            added = raw_moments(inputs[0][of_rows]).mean(0)  # of all these images
            former = self.sums.get((number, row), added)
            weight = int(chosen.sum()) / self.counts[own, row]
            self.sums[number, row] = torch.lerp(former, added, weight)
            self._write(number, row)

    @torch.no_grad()
    def write(self, row: int) -> None:
        """Into a row again, where something else has been written since."""
        for number, one in enumerate(self.layers):
            own = row if one.tracks_domains else 0
            if (number, own) in self.sums:
                self._write(number, own)

    @torch.no_grad()
    def restore(self, row: int) -> None:
        """The source's moments into a row."""
        for one, start in zip(self.layers, self._start, strict=True):
            own = row if one.tracks_domains else 0
            one.running_mean[own], one.running_var[own] = start[:, own]

    def _write(self, number: int, row: int) -> None:
        statistics, (first, second) = self.layers[number], self.sums[number, row]
        count = self.counts[statistics.tracks_domains, row]
        mean, var = self._start[number][:, row].double()
        old, new = (mean, var), (first, (second - first.square()).clamp(min=0))
        if self.share is None or isinstance(self.share, str):
            new = between(old, new, count / (count + self.prior), statistics.eps)
        share = 1.0 if self.share is None else self.share
        running = statistics.running_mean, statistics.running_var
        for one, moment in zip(running, between(old, new, share, statistics.eps), strict=True):
            one[row] = moment.to(one)
