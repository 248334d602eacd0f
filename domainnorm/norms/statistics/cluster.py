"""Moments of the samples of one estimated cluster."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.errors import DomainNormError
from domainnorm.norms.base import Statistics
from domainnorm.norms.layout import moments
from domainnorm.norms.mixing import Moments, normalize, sample_moments
from domainnorm.norms.statistics.domain import DomainStatistics
from domainnorm.registry import register


@register
class ClusterStatistics(Statistics):
    """Each sample is normalized with the moments of samples of its style: domains without labels.

    The style of a sample is the mean and deviation of each of its channels, and a cluster k has a
    centroid c[k] of styles. Hard assignment: a sample belongs to the nearest centroid, and clusters
    are then treated as `DomainStatistics` treats domains. Soft assignment::

        w[n, k] = softmax_k(-distance(style[n], c[k]) / temperature)
        mean[k] = Σ_n w[n, k] mean[n] / Σ_n w[n, k]     (and the variance likewise)
        mean[n] = Σ_k w[n, k] mean[k],  var[n] that of the mixture of the clusters

    Distances are mean squares over the 2C entries, each divided by its running variance. Training:
    moments of the clusters in this batch, tracked in a row per cluster; centroids and variances
    of styles follow as moving averages; clusters that are absent stay as they are. No gradient
    flows through the assignment. Evaluation: running moments of the assigned clusters.

    Centroids are first taken from the training batches: the sample nearest to the mean style, then
    those farthest from all centroids so far. Under DDP the centroids are those of rank 0.

    Args:
        num_features: C.
        num_domains: D; clusters are found without domain labels.
        num_clusters: K.
        assignment: Whether a sample has one cluster, or a weight for each.
        temperature: Of soft weights, > 0; in units of the mean squared distance.
        momentum: Weight of the new batch in [0, 1]; None for the cumulative average.
        eps: Added to variances.

    Raises:
        DomainNormError: ``num_clusters`` or ``temperature`` that is not positive.

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
        for name, value in (("num_clusters", num_clusters), ("temperature", temperature)):
            if value <= 0:
                raise DomainNormError(f"{name}: got {value}, expected a positive number")
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
        own = sample_moments(x) if soft and self.training else Moments(*moments(x.detach()))
        with torch.no_grad():
            style = torch.cat([own.mean, own.var.sqrt()], dim=1).to(self.centroids.dtype)
            if self.training and self._may_open():
                self._open(style)
            distance = self._distance(style)
            label = distance.argmin(1)
            # Before any centroid is found all distances are infinite, and all clusters equal.
            weights = torch.softmax(-(distance / self.temperature).clamp(max=1e30), dim=1)
        if soft and self.training:
            output = self._normalize_softly(x, scale, shift, own, weights)
        else:
            given = Condition(weights=weights) if soft else Condition(domain=label)
            output = self.clusters(x, scale, shift, given)
        if self.training:
            hard = torch.nn.functional.one_hot(label, len(self.centroids)).to(weights.dtype)
            self._follow(style, weights if soft else hard)
        return output

    def _distance(self, style: Tensor) -> Tensor:
        """(N, 2C) -> (N, K), infinite for centroids that are not found yet."""
        apart = (style[:, None] - self.centroids).square()
        distance = (apart / (self.style_var + self.clusters.eps)).mean(2)
        return distance.masked_fill(~self.found, torch.inf)

    def _may_open(self) -> bool:
        # Reading the buffer costs a synchronization on a GPU and a graph break under compile.
        if torch.compiler.is_compiling() or self.found.device.type != "cpu":
            return True
        return not bool(self.found.all())

    def _open(self, style: Tensor) -> None:
        """Take missing centroids from this batch, the farthest samples first."""
        first = ~self.found.any()
        self.style_var.copy_(torch.where(first, style.var(0, unbiased=False), self.style_var))
        central = -(style - style.mean(0)).square().mean(1)
        for k in range(len(self.found)):
            nearest = self._distance(style).amin(1)
            farthest = torch.where(self.found.any(), nearest, central).argmax()
            new = ~self.found[k] & (nearest.amax() > 0)
            # Not style[farthest]: a compiler would have to read the index.
            chosen = style.index_select(0, farthest[None])[0]
            self.centroids[k] = torch.where(new, chosen, self.centroids[k])
            self.found[k] |= new

    def _normalize_softly(
        self, x: Tensor, scale: Tensor, shift: Tensor, own: Moments, weights: Tensor
    ) -> Tensor:
        weights = weights.to(own.mean.dtype)
        origin = own.mean.detach().mean(0)  # keeps second moments small numbers
        mean = own.mean - origin
        mass = weights.sum(0)[:, None]
        share = weights.t() / mass.clamp(min=1e-12)
        cluster_mean = share @ mean
        second = share @ (own.var + mean.square())
        cluster_var = (second - cluster_mean.square()).clamp(min=0)
        self._track(cluster_mean.detach() + origin, cluster_var.detach(), mass * x[0, 0].numel())
        mixed = weights @ cluster_mean
        var = weights @ (cluster_var + cluster_mean.square()) - mixed.square()
        given = Moments(mixed + origin, var.clamp(min=0))
        return normalize(x, given, scale, shift, self.clusters.eps)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, values: Tensor) -> None:
        """Move the running moments of clusters that hold more than one value, (K, 1)."""
        rows, seen = self.clusters, values > 1
        rows.num_batches_tracked += seen[:, 0]
        unbiased = var * values / (values - 1).clamp(min=1e-6)
        for running, batch in ((rows.running_mean, mean), (rows.running_var, unbiased)):
            self._move(running, batch, seen)

    @torch.no_grad()
    def _follow(self, style: Tensor, weights: Tensor) -> None:
        """Centroids move to the mean style of their samples, (N, 2C) weighted by (N, K)."""
        mass = weights.sum(0)[:, None]
        centre = (weights.t() @ style) / mass.clamp(min=1e-12)
        self._move(self.centroids, centre, mass > 1e-6)
        if len(style) > 1:
            factor = 0.1 if self.clusters.momentum is None else self.clusters.momentum
            self.style_var.lerp_(style.var(0, unbiased=False), factor)

    def _move(self, running: Tensor, new: Tensor, seen: Tensor) -> None:
        factor: Tensor | float | None = self.clusters.momentum
        if factor is None:
            factor = self.clusters.num_batches_tracked.clamp(min=1).reciprocal()[:, None]
        moved = running + factor * (new.to(running.dtype) - running)
        running.copy_(torch.where(seen, moved, running))

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"clusters={len(self.centroids)}, assignment={self.assignment}"
