"""Exact moments of a set of images at every norm with running moments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones.conversion.norm_layers import evaluating
from domainnorm.backbones.model import DomainModel
from domainnorm.norms.kernels.partition import several_ranks, sum_over_ranks
from domainnorm.norms.kernels.per_sample import raw_moments
from domainnorm.norms.statistics.running import RunningMoments


class MomentEstimator:
    """Pools the moments of all samples of each domain that pass through a model.

    ``mean = Σ_n m_n / N``, ``var = Σ_n (v_n + m_n²) / N - mean²`` over all N samples, where m_n,
    v_n are the moments of one sample: the moments of the whole set, not an average over batches.

    Args:
        model: Its norms with running moments are observed inside `observing`.

    Reference:
        Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, 2016,
        arXiv:1603.04779, alg. 1 and its online form.
    """

    def __init__(self, model: DomainModel) -> None:
        self.model = model
        self._sums: dict[RunningMoments, Tensor] = {}
        self._counts: dict[RunningMoments, Tensor] = {}

    @contextmanager
    def observing(self, counted: Tensor | None = None) -> Iterator[None]:
        """Norms use the statistics of the batch, everything else is in evaluation mode.

        Args:
            counted: Which samples of the batch enter the sums, (N,) bool; all when None.
        """
        observe = partial(self._observe, counted)
        with evaluating(self.model), ExitStack() as hooks:
            for norm in self.model.norms():
                if isinstance(norm.statistics, RunningMoments):
                    norm.statistics.train()
                    hooks.enter_context(norm.statistics.register_forward_pre_hook(observe))
            yield

    def _observe(
        self, counted: Tensor | None, statistics: RunningMoments, inputs: tuple[Any, ...]
    ) -> None:
        x, condition = inputs[0], inputs[3]
        row = condition.domain
        if len(statistics.running_mean) == 1:
            row = torch.zeros(len(x), dtype=torch.long, device=x.device)
        elif row is None or condition.unseen:
            return  # domain statistics refuse these themselves, naming the layer
        both = raw_moments(x)
        sums, counts = self._totals(statistics, both.device)
        weight = torch.ones_like(both[:, 0, 0])
        if counted is not None:  # a folded layer sees several rows of each sample
            weight = counted.to(weight).repeat_interleave(len(x) // len(counted))
        sums.index_add_(0, row, both * weight[:, None, None])
        counts.index_add_(0, row, weight)

    def _totals(self, statistics: RunningMoments, device: torch.device) -> tuple[Tensor, Tensor]:
        """Sums (R, 2, C) and numbers of samples (R,) so far, float64."""
        if statistics not in self._sums:
            rows, features = statistics.running_mean.shape
            zeros = torch.zeros(rows, 2, features, dtype=torch.float64, device=device)
            self._sums[statistics], self._counts[statistics] = zeros, zeros.new_zeros(rows)
        return self._sums[statistics], self._counts[statistics]

    @torch.no_grad()
    def write(self) -> None:
        """Put the pooled moments into the running moments of the domains that were seen.

        Under DDP the sums of all ranks are added first.
        """
        for norm in self.model.norms():
            statistics = norm.statistics
            if not isinstance(statistics, RunningMoments):
                continue
            # Zeros where this rank saw nothing: every rank has to take part in every sum.
            sums, counts = self._totals(statistics, statistics.running_mean.device)
            if several_ranks():
                sums, counts = sum_over_ranks(sums), sum_over_ranks(counts)
            seen = counts > 0
            mean, second = (sums / counts.clamp(min=1)[:, None, None]).unbind(1)
            var = (second - mean.square()).clamp(min=0)
            for running, new in ((statistics.running_mean, mean), (statistics.running_var, var)):
                running.copy_(torch.where(seen[:, None], new.to(running.dtype), running))
