"""Moments of the samples of one estimated cluster."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from domainnorm.condition import Condition, weighted_rows
from domainnorm.norms.kernels.partition import rows_of_ranks, sums_over_ranks
from domainnorm.norms.kernels.sample_moments import Moments, normalize, pool_samples, sample_moments
from domainnorm.norms.layer import Statistics
from domainnorm.norms.statistics.running import DomainStatistics
from domainnorm.registry import register
from domainnorm.slot import in_backward

# Passes through one layer under one condition that a recompute may belong to.
_PASSES = 16


class _Whole(NamedTuple):
    """Mean and variance of the styles of a batch, on all ranks (1, 2C), and how many, (1, 1)."""

    mean: Tensor
    var: Tensor
    samples: Tensor


class _Assigned(NamedTuple):
    """Styles of a batch (N, 2C), nearest clusters (N,), soft ones (N, K); in training the whole."""

    style: Tensor
    label: Tensor
    weights: Tensor
    whole: _Whole | None


@register
class ClusterStatistics(Statistics):
    """Each sample is normalized with the moments of similar samples, for domains without labels.

    The style of a sample is the mean and deviation of each of its channels, and a cluster k has a
    centroid c[k] of styles. Hard assignment: a sample belongs to the nearest centroid, and clusters
    are then treated as `DomainStatistics` treats domains. Soft assignment::

        w[n, k] = softmax_k(-distance(style[n], c[k]) / temperature)
        mean[k] = Σ_n w[n, k] mean[n] / Σ_n w[n, k]     (and the variance likewise)
        mean[n] = Σ_k w[n, k] mean[k],  var[n] that of the mixture of the clusters

    Distances are mean squares over the 2C entries, each divided by its running variance. Training:
    moments of the clusters in this batch, tracked in a row per cluster; centroids and variances
    of styles follow as moving averages; absent clusters do not change. No gradient flows through
    the assignment. Evaluation: running moments of the assigned clusters.

    Centroids are first taken from the training batches: the sample nearest to the mean style, then
    those farthest from all centroids so far. Under DDP moments and centroids are those of the
    samples of all ranks.

    Args:
        num_features: C.
        num_domains: D; clusters are found without domain labels.
        num_clusters: K, at least 1.
        assignment: ``hard``: a sample has one cluster. ``soft``: it has a weight for each.
        temperature: Temperature of soft weights, above 0, in units of the mean squared distance.
        momentum: Weight of the new batch in [0, 1]; null for the cumulative average.
        eps: Added to variances.

    Reference:
        Deecke et al., Mode Normalization, ICLR 2019, arXiv:1810.05466, sec. 3 (weighted moments of
        modes); Matsuura and Harada, Domain Generalization Using a Mixture of Multiple Latent
        Domains, AAAI 2020, arXiv:1911.07661, sec. 3 (latent domains are clusters of channel means
        and deviations). Differs: centroids instead of a gating network, each layer clusters its
        own input, and a soft sample is normalized once, with the moments of its mixture.
    """

    centroids: Tensor
    found: Tensor
    style_var: Tensor

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        *,
        num_clusters: int = 4,
        assignment: Literal["hard", "soft"] = "hard",
        temperature: float = 1.0,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.clusters = DomainStatistics(num_features, num_clusters, momentum=momentum, eps=eps)
        self.assignment = assignment
        self.temperature = temperature
        self.register_buffer("centroids", torch.zeros(num_clusters, 2 * num_features))
        self.register_buffer("found", torch.zeros(num_clusters, dtype=torch.bool))
        self.register_buffer("style_var", torch.ones(2 * num_features))

    @property
    def keeps_function(self) -> bool:
        """All clusters start with the moments of the replaced layer."""
        return True

    def start(self, mean: Tensor, var: Tensor, batches: Tensor | None) -> None:
        """Every cluster takes over the running moments (C,)."""
        self.clusters.start(mean, var, batches)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C)."""
        soft = self.assignment == "soft"
        own = sample_moments(x if soft and self.training else x.detach())
        with torch.no_grad():
            style = torch.cat([own.mean, own.var.sqrt()], dim=1).to(self.centroids.dtype)
            assigned, is_new = self._assigned(style, condition)
        _, label, weights, whole = assigned
        if soft and whole is not None:
            origin = whole.mean[:, : x.shape[1]]
            output = self._normalize_softly(x, (scale, shift), own, weights, origin)
        else:
            given = Condition(weights=weights) if soft else Condition(domain=label)
            output = self.clusters(x, scale, shift, given)
        if whole is not None and is_new:
            hard = torch.nn.functional.one_hot(label, len(self.centroids)).to(weights.dtype)
            self._follow(style, weights if soft else hard, whole)
        return output

    def _assigned(self, style: Tensor, condition: Condition) -> tuple[_Assigned, bool]:
        """The clusters of styles (N, 2C), and whether this is not the recompute of a pass.

        Gradient checkpointing runs the layer again in backward, when the centroids have moved:
        samples stay where the forward pass has put them.
        """
        if not self.training or torch.compiler.is_compiling():
            return self._assign(style), True
        passes: list[_Assigned] = condition.once(("clusters", id(self)), list)
        if in_backward():
            for one in passes:
                if torch.equal(one.style, style):
                    return one, False
        passes.append(self._assign(style))
        del passes[:-_PASSES]
        return passes[-1], True

    def _assign(self, style: Tensor) -> _Assigned:
        whole = self._whole(style) if self.training else None
        if whole is not None and self._may_open():
            self._open(style, whole)
        distance = self._distance(style)
        # Before any centroid is found all distances are infinite, and all clusters equal.
        largest = torch.finfo(distance.dtype).max
        weights = torch.softmax(-(distance / self.temperature).clamp(max=largest), dim=1)
        return _Assigned(style, distance.argmin(1), weights, whole)

    def _whole(self, style: Tensor) -> _Whole:
        """What the styles (N, 2C) of this rank and all others are like."""
        group = torch.zeros(len(style), dtype=torch.long, device=style.device)
        own, sync = Moments(style, torch.zeros_like(style)), self.clusters.synchronizes
        (mean, var), samples = pool_samples(own, group, 1, sync=sync)
        return _Whole(mean, var, samples)

    def _distance(self, style: Tensor) -> Tensor:
        """(N, 2C) -> (N, K), infinite for centroids that are not found yet."""
        apart = (style[:, None] - self.centroids).square()
        distance = (apart / (self.style_var + self.clusters.eps)).mean(2)
        return distance.masked_fill(~self.found, torch.inf)

    def _may_open(self) -> bool:
        # Reading the buffer breaks a graph under compile, and costs a synchronization on a GPU;
        # offers of all ranks would cost more.
        if torch.compiler.is_compiling():
            return True
        free = self.found.device.type == "cpu" or self.clusters.synchronizes
        return not (free and bool(self.found.all()))

    def _open(self, style: Tensor, whole: _Whole) -> None:
        """Take missing centroids from this batch, the farthest samples first."""
        first = ~self.found.any() & (whole.samples[0] > 0)
        self.style_var.copy_(torch.where(first, whole.var[0], self.style_var))
        central = -(style - whole.mean).square().mean(1)
        for k in range(len(self.found)):
            some = self.found.any()
            offer = self._offer(style, torch.where(some, self._distance(style).amin(1), central))
            if self.clusters.synchronizes:
                offers = rows_of_ranks(offer)
                offer = offers.index_select(0, offers[:, 0].argmax()[None])
            least = torch.where(some, 0.0, -torch.inf)
            new = ~self.found[k] & (offer[0, 0] > least)
            self.centroids[k] = torch.where(new, offer[0, 1:], self.centroids[k])
            self.found[k] |= new

    @staticmethod
    def _offer(style: Tensor, score: Tensor) -> Tensor:
        """The sample of the highest score (N,) and its style (N, 2C), (1, 1 + 2C)."""
        if len(style) == 0:  # a rank without samples still takes part
            nothing = style.new_zeros(1, 1 + style.shape[1])
            nothing[0, 0] = -torch.inf
            return nothing
        best, farthest = score.max(0, keepdim=True)
        # Not style[farthest]: a compiler would have to read the index.
        return torch.cat([best[:, None], style.index_select(0, farthest)], dim=1)

    def _normalize_softly(
        self, x: Tensor, pair: tuple[Tensor, Tensor], own: Moments, weights: Tensor, origin: Tensor
    ) -> Tensor:
        """Normalize with the moments of each sample's mixture; ``origin`` (1, C) is near them."""
        weights, origin = weights.to(own.mean.dtype), origin.to(own.mean.dtype)
        mean = own.mean - origin  # keeps second moments small numbers
        share = weights.t() * x.shape[2:].numel()
        values = share.sum(1, keepdim=True)
        first, second = weighted_rows(share, mean), weighted_rows(share, own.var + mean.square())
        if self.clusters.synchronizes:
            values, first, second = sums_over_ranks(values, first, second)
        values = values.detach()
        divisor = values.clamp(min=1e-12)
        cluster_mean, second = first / divisor, second / divisor
        cluster_var = (second - cluster_mean.square()).clamp(min=0)
        self._track(cluster_mean.detach() + origin, cluster_var.detach(), values)
        mixed = weighted_rows(weights, cluster_mean)
        var = weighted_rows(weights, cluster_var + cluster_mean.square()) - mixed.square()
        given = Moments(mixed + origin, var.clamp(min=0))
        return normalize(x, given, *pair, self.clusters.eps)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, values: Tensor) -> None:
        """Move the running moments of clusters that hold more than one value, (K, 1)."""
        if in_backward():  # a recompute
            return
        rows, seen = self.clusters, values > 1
        rows.num_batches_tracked += seen[:, 0]
        unbiased = var * values / (values - 1).clamp(min=1e-6)
        for running, batch in ((rows.running_mean, mean), (rows.running_var, unbiased)):
            self._move(running, batch, seen)

    @torch.no_grad()
    def _follow(self, style: Tensor, weights: Tensor, whole: _Whole) -> None:
        """Centroids move to the mean style of their samples, (N, 2C) weighted by (N, K)."""
        mass, total = weights.sum(0)[:, None], weighted_rows(weights.t(), style)
        if self.clusters.synchronizes:
            mass, total = sums_over_ranks(mass, total)
        self._move(self.centroids, total / mass.clamp(min=1e-12), mass > 1e-6)
        factor = 0.1 if self.clusters.momentum is None else self.clusters.momentum
        several = (whole.samples[0] > 1).to(whole.var.dtype)
        self.style_var.lerp_(whole.var[0], factor * several)

    def _move(self, running: Tensor, new: Tensor, seen: Tensor) -> None:
        factor: Tensor | float | None = self.clusters.momentum
        if factor is None:
            seen_so_far = self.clusters.num_batches_tracked.clamp(min=1)[:, None]
            factor = seen_so_far.to(running.dtype).reciprocal()
        moved = running + factor * (new.to(running.dtype) - running)
        running.copy_(torch.where(seen, moved, running))

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"clusters={len(self.centroids)}, assignment={self.assignment}"
