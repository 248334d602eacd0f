"""Moments of the samples of one domain."""

from __future__ import annotations

import torch
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.norms.kernels.batch_norm import (
    evaluate_rows,
    evaluate_samples,
    normalize_batch,
)
from domainnorm.norms.kernels.mixing import sample_moments
from domainnorm.norms.kernels.partition import by_domain
from domainnorm.norms.statistics.base import RunningMoments
from domainnorm.registry import register
from domainnorm.slot import MomentsReached


@register
class DomainStatistics(RunningMoments):
    """Each sample is normalized with the moments of its own domain.

    Training: ``mean[d] = avg over samples n with domain d, and pixels, of x[n]``. Domains may be
    mixed in a batch; absent ones keep their running moments bit for bit. Evaluation: running
    moments of the sample's domain; soft weights mix them as a mixture distribution,
    ``mean = Σ w[d] mean[d]``, ``var = Σ w[d] (var[d] + mean[d]²) - mean²``; samples of an unseen
    domain get the mixture of all in equal parts, or the moments of the unseen samples in the batch.

    Args:
        num_features: C.
        num_domains: D.
        momentum: Weight of the new batch in [0, 1]; None for the cumulative average.
        eps: Added to the variance.
        stride: In training, moments are those of every ``stride``-th pixel along each axis.
        sync: Whether moments go on over ranks when several train together.
        frozen: Whether the running moments normalize in training too, and stay as they are.

    Reference:
        Chang et al., Domain-Specific Batch Normalization, CVPR 2019, arXiv:1906.03950, eq. 2.
        Differs: one tensor with the domain axis first instead of D layers.
    """

    @property
    def tracks_domains(self) -> bool:
        """Rows are domains."""
        return True

    def forward(
        self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition, rows: bool = False
    ) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C).

        ``rows``: they are those of the domains instead, (D or 1, C).

        Raises:
            ConditionError: Soft weights in training, where a sample must belong to one domain.
        """
        domain = condition.domain
        if self.training and not self.frozen:
            if domain is None or condition.unseen:
                got = "soft weights" if domain is None else "samples of unseen domains"
                raise ConditionError(
                    f"domain statistics in training need one label per sample, got {got}; pass "
                    "domain=, or call model.eval()"
                )
            running = self.running_mean
            groups = by_domain(condition, domain, running.shape[0])
            if rows and scale.shape[0] < running.shape[0]:
                scale, shift = (table.expand_as(running) for table in (scale, shift))
            return normalize_batch(x, scale, shift, groups, groups if rows else None, self.running)
        if rows and domain is not None:
            groups = by_domain(condition, domain, len(self.running_mean))
            return evaluate_rows(x, scale, shift, groups, self.running)
        mean, var = self._moments(x, condition)
        if condition.unseen == "batch":
            given, size = (mean, var), x.shape[2:].numel()
            mean, var = condition.with_batch_moments(given, sample_moments(x), size)
        return evaluate_samples(x, scale, shift, (mean, var), self.eps)

    def _moments(self, x: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        if condition.unseen == "nearest":
            running = self.running_mean, self.running_var
            raise MomentsReached(sample_moments(x), x.shape, running, self.eps)
        mean = condition.select(self.running_mean)
        if condition.domain is not None:
            var = condition.select(self.running_var)
            if not condition.unseen:
                return mean, var
            spread = self.running_mean.var(0, unbiased=False)
            return mean, torch.where(condition.unknown, var + spread, var)
        second = condition.select(self.running_var + self.running_mean.square())
        return mean, (second - mean.square()).clamp(min=0)
