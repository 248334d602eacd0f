"""Moments of the whole batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.norms.kernels.batch_norm import (
    evaluate_rows,
    evaluate_samples,
    normalize_batch,
)
from domainnorm.norms.kernels.mixing import sample_moments
from domainnorm.norms.kernels.partition import by_domain, whole_batch
from domainnorm.norms.statistics.base import RunningMoments
from domainnorm.registry import register


@register
class BatchStatistics(RunningMoments):
    """All samples are normalized with the moments of the whole batch, whatever their domain.

    Training: ``mean = avg over samples and pixels of x``, tracked in one row of running moments.
    Evaluation: running moments; samples of unseen domains on request their own batch's.

    Args:
        num_features: C.
        num_domains: D; the moments do not depend on it.
        momentum: Weight of the new batch in [0, 1]; None for the cumulative average.
        eps: Added to the variance.
        stride: In training, moments are those of every ``stride``-th pixel along each axis.
        sync: Whether moments go on over ranks when several train together.
        frozen: Whether the running moments normalize in training too, and stay as they are.

    Reference:
        Ioffe and Szegedy, Batch Normalization, ICML 2015, arXiv:1502.03167, alg. 1 and 2.
    """

    def __init__(self, num_features: int, num_domains: int, **options: Any) -> None:
        super().__init__(num_features, 1, **options)

    def forward(
        self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition, rows: bool = False
    ) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C).

        ``rows``: they are those of the domains instead, (D or 1, C).
        """
        domain = condition.domain
        pairs = None
        if rows and domain is not None and len(scale) > 1:
            pairs = by_domain(condition, domain, len(scale))
        if self.frozen or not self.training:
            if pairs is not None:
                return evaluate_rows(x, scale, shift, pairs, self.running)
            mean, var = self.running_mean, self.running_var
            if condition.unseen == "batch":
                given, size = (mean, var), x.shape[2:].numel()
                mean, var = condition.with_batch_moments(given, sample_moments(x), size)
            return evaluate_samples(x, scale, shift, (mean, var), self.eps)
        groups = whole_batch(condition, x.shape[0], x.device)
        # The pair of a single sample looks like that of all. Ranks with several would not know, and
        # wait for sums of another shape.
        if pairs is None and scale.shape[0] == 1 and (rows or not self.synchronizes):
            pairs = groups
        return normalize_batch(x, scale, shift, groups, pairs, self.running)
