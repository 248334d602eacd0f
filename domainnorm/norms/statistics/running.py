"""Statistics with running moments: those of each domain, and those of the whole batch."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from domainnorm.condition import Condition, Pair
from domainnorm.errors import ConditionError
from domainnorm.norms.kernels.batch_norm import (
    Running,
    evaluate_rows,
    evaluate_samples,
    normalize_batch,
    track,
)
from domainnorm.norms.kernels.partition import by_domain, counts, several_ranks, whole_batch
from domainnorm.norms.kernels.per_sample import subsample
from domainnorm.norms.kernels.sample_moments import (
    Moments,
    normalize,
    pool_samples,
    sample_moments,
)
from domainnorm.norms.layer import Statistics
from domainnorm.registry import register
from domainnorm.slot import MomentsReached, channel_divergence, in_backward


class RunningMoments(Statistics):
    """Normalizes with the moments of groups of samples, and keeps running ones for evaluation.

    Training: moments of the group in this batch; ``running += momentum · (batch - running)`` for
    the groups that are present, with the unbiased variance, as in PyTorch. Differs: once for each
    batch under gradient checkpointing, which moves those of PyTorch twice. A group that holds a
    single value per channel has no variance: its running moments normalize it and stay as they
    are. When several ranks train together, a group's moments are those of its samples on all of
    them. Evaluation: running moments.

    Args:
        num_features: C.
        num_rows: Rows of running moments, R.
        momentum: Weight of the new batch in [0, 1]; null for the cumulative average.
        eps: Added to the variance.
        stride: In training, moments use every ``stride``-th pixel along each axis, at least 1.
        sync: Compute moments over all ranks; every rank must then run every layer equally often.
        frozen: Normalize with the running moments in training too, and never change them.

    Shape:
        ``running_mean``, ``running_var``: (R, C). ``num_batches_tracked``: (R,), batches each row
        has seen.
    """

    takes_rows = True
    row_names = ("running_mean", "running_var", "num_batches_tracked")
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        num_rows: int,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        stride: int = 1,
        sync: bool = True,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.stride = stride
        self.sync = sync
        self.frozen = frozen
        self.register_buffer("running_mean", torch.zeros(num_rows, num_features))
        self.register_buffer("running_var", torch.ones(num_rows, num_features))
        self.register_buffer("num_batches_tracked", torch.zeros(num_rows, dtype=torch.long))
        self.train()  # where it is not frozen

    @property
    def keeps_function(self) -> bool:
        """Evaluation with the moments of the replaced layer is that layer."""
        return True

    @torch.no_grad()
    def start(self, mean: Tensor, var: Tensor, batches: Tensor | None) -> None:
        """Every row becomes ``mean`` and ``var`` (C,), having seen ``batches`` of them."""
        self.running_mean.copy_(mean.expand_as(self.running_mean))
        self.running_var.copy_(var.expand_as(self.running_var))
        if batches is not None:
            self.num_batches_tracked.copy_(batches.expand_as(self.num_batches_tracked))

    @property
    def synchronizes(self) -> bool:
        """Whether moments of this step go on over several ranks."""
        return self.sync and several_ranks()

    @property
    def running(self) -> Running:
        """The moments, as the kernels take and move them; copies where a batch comes again.

        Gradient checkpointing runs a layer a second time, and has moved them in the first.
        """
        moments = self.running_mean, self.running_var, self.num_batches_tracked
        if self.training and in_backward():
            mean, var, batches = moments
            moments = mean.clone(), var.clone(), batches.clone()
        return Running(*moments, self.momentum, self.eps, self.stride, self.sync)

    def _pooled_rows(
        self, own: Moments, row: Tensor, *, size: int, sync: bool
    ) -> tuple[Moments, Tensor]:
        """Moments (R, C) of the samples of each row, and how many values each has, (R, 1).

        A row with a single value per channel, whose variance would be zero, has its running ones.
        """
        rows = len(self.running_mean)
        (mean, var), values = pool_samples(own, row, rows, size=size, sync=sync)
        mean = torch.where(values == 1, self.running_mean.to(mean.dtype), mean)
        var = torch.where(values == 1, self.running_var.to(var.dtype), var)
        return Moments(mean, var), values

    def _evaluate(
        self, x: Tensor, scale: Tensor, shift: Tensor, moments: Pair, condition: Condition
    ) -> Tensor:
        """With given moments, (N or 1, C), or where it is asked for those of unseen samples."""
        if condition.unseen == "batch":
            size = x.shape[2:].numel()
            moments = condition.with_batch_moments(moments, sample_moments(x), size)
        return evaluate_samples(x, scale, shift, moments, self.eps)

    def extra_repr(self) -> str:
        """Shapes and constants, for ``print(model)``."""
        rows, features = self.running_mean.shape
        return f"{features}, rows={rows}, momentum={self.momentum}, eps={self.eps}"


@register("domain")
class DomainStatistics(RunningMoments):
    """Each sample is normalized with the moments of its own domain.

    Training: ``mean[d] = avg over samples n with domain d, and pixels, of x[n]``. Domains may be
    mixed in a batch; absent ones keep their running moments bit for bit. Evaluation: running
    moments of the sample's domain; soft weights mix them as a mixture distribution,
    ``mean = Σ w[d] mean[d]``, ``var = Σ w[d] (var[d] + mean[d]²) - mean²``; samples of an unseen
    domain get the mixture of all in equal parts, or the moments of the unseen samples in the batch.

    **Between the moments of a domain and those of all.** With m[d], v[d] of the domains in a batch,
    and those of all of them in equal parts, ``M = avg_d m[d]``, ``V = avg_d (v[d] + (m[d] - M)²)``,
    domain d is normalized with the mixture of both, ``share`` of the first::

        mean[d] = share m[d] + (1 - share) M
        var[d]  = share (v[d] + (m[d] - mean[d])²) + (1 - share) (V + (M - mean[d])²)

    A share of 1 leaves each domain its own, one of 0 is batch norm in which every domain counts the
    same. ``unlike`` is a share for each channel, ``k / (1 + k)``, with k the symmetric Kullback-
    Leibler divergence of two domains, averaged over all pairs in the batch: domains that look alike
    share, which mixes their features and has more samples; where they do not, moments of all would
    tell them apart in every layer after it. No gradient flows through it. Running moments are those
    of the mixtures. A domain that comes in batches of its own has its own.

    Args:
        num_features: C.
        num_domains: D.
        share: Weight of a domain's own moments in training, in [0, 1], or ``unlike``, see above.
        **options: See `RunningMoments`, whose rows are the domains, R = D.

    Reference:
        Chang et al., Domain-Specific Batch Normalization, CVPR 2019, arXiv:1906.03950, eq. 2.
        Differs: one tensor with the domain axis first instead of D layers. Carlucci et al.,
        AutoDIAL, ICCV 2017, arXiv:1704.08082, eq. 1 and 2 (mixtures). Differs: any number of
        domains, and there a share for each layer is learned, of two domains from ½ (here 0) to 1.
    """

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        *,
        share: float | Literal["unlike"] = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(num_features, num_domains, **options)
        self.own_share = share

    @property
    def tracks_domains(self) -> bool:
        """Rows are domains."""
        return True

    @property
    def mixes_domains(self) -> bool:
        """Domains share moments in part."""
        return self.own_share != 1

    def forward(
        self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition, rows: bool = False
    ) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C).

        ``rows``: they are those of the domains instead, (D or 1, C).

        Raises:
            ConditionError: Soft weights in training, where a sample must belong to one domain.
        """
        domain = condition.domain
        if self.training:
            if domain is None or condition.unseen:
                got = "soft weights" if domain is None else "samples of unseen domains"
                raise ConditionError(
                    f"domain statistics in training need one label per sample, got {got}; pass "
                    "domain=, or call model.eval()"
                )
            running = self.running_mean
            groups = by_domain(condition, domain, running.shape[0])
            if self.mixes_domains:
                if rows and len(scale) > 1:
                    scale, shift = (table.index_select(0, domain) for table in (scale, shift))
                return self._between(x, scale, shift, domain)
            if rows and scale.shape[0] < running.shape[0]:
                scale, shift = (table.expand_as(running) for table in (scale, shift))
            return normalize_batch(x, scale, shift, groups, groups if rows else None, self.running)
        if rows and domain is not None:
            groups = by_domain(condition, domain, len(self.running_mean))
            return evaluate_rows(x, scale, shift, groups, self.running)
        return self._evaluate(x, scale, shift, self._moments(x, condition), condition)

    def _between(self, x: Tensor, scale: Tensor, shift: Tensor, domain: Tensor) -> Tensor:
        """With mixtures of the moments of each sample's domain (N,) and those of all."""
        seen = subsample(x, self.stride)
        own, values = self._pooled_rows(
            sample_moments(seen), domain, size=seen.shape[2:].numel(), sync=self.synchronizes
        )
        mixed = self._mixed(own, values > 0)
        track(self.running, mixed.mean.detach(), mixed.var.detach(), counts(values))
        given = Moments(*(moment.index_select(0, domain) for moment in mixed))
        return normalize(x, given, scale, shift, self.eps)

    def _mixed(self, own: Moments, present: Tensor) -> Moments:
        """Of moments (D, C) of the domains, those that are ``present`` (D, 1)."""
        weight = present.to(own.mean.dtype) / present.sum().clamp(min=1)
        centre = (weight * own.mean).sum(0)
        apart = own.mean - centre
        second = own.var + apart.square()  # about the centre, so that no digits are lost
        share = self._share(own, present)
        mean = share * apart
        second = torch.lerp((weight * second).sum(0).expand_as(second), second, share)
        return Moments(centre + mean, second - mean.square())

    @torch.no_grad()
    def _share(self, own: Moments, present: Tensor) -> Tensor:
        """Share of a domain's own moments, (D, C)."""
        if self.own_share != "unlike":
            return torch.full_like(own.mean, self.own_share)
        one = Moments(*(moment[:, None] for moment in own))
        apart = channel_divergence(one, own, self.eps)  # (D, D, C), 0 of a domain and itself
        pairs, number = present & present.t(), present.sum()
        total = torch.where(pairs[..., None], apart, 0).sum((0, 1))
        unlike = total / (number * (number - 1)).clamp(min=1)
        return (unlike / (1 + unlike)).expand_as(own.mean)

    def _moments(self, x: Tensor, condition: Condition) -> Pair:
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


@register("batch")
class BatchStatistics(RunningMoments):
    """All samples are normalized with the moments of the whole batch, of any domain.

    Training: ``mean = avg over samples and pixels of x``, tracked in one row of running moments.
    Evaluation: running moments; samples of unseen domains on request their own batch's.

    Args:
        num_features: C.
        num_domains: D; the moments do not depend on it.
        **options: See `RunningMoments`.

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
        if not self.training:
            if pairs is not None:
                return evaluate_rows(x, scale, shift, pairs, self.running)
            moments = self.running_mean, self.running_var
            return self._evaluate(x, scale, shift, moments, condition)
        groups = whole_batch(condition, x.shape[0], x.device)
        # The pair of a single sample looks like that of all. Ranks with several would not know, and
        # wait for sums of another shape.
        if pairs is None and scale.shape[0] == 1 and (rows or not self.synchronizes):
            pairs = groups
        return normalize_batch(x, scale, shift, groups, pairs, self.running)
