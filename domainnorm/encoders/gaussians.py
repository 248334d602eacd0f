"""Gaussians of the domains in the space of embeddings."""

from __future__ import annotations

import math
import warnings

import torch
from scipy.special import betaincinv
from torch import Tensor, nn

from domainnorm.errors import ConditionError

_SURE = 0.9  # of bounds on the rate of false alarms
# Temperatures that are tried: from the Gaussians as they are to nearly equal weights. None is below
# 1: held-out images that all are told apart would ask for zero, and the next mistake be certain.
_TEMPERATURES = torch.logspace(0, 3, 121, dtype=torch.float64)


class DomainGaussians(nn.Module):
    """One Gaussian per domain, with a covariance that all domains share.

    ``distance[n, d] = (e_n - mean_d)ᵀ Σ⁻¹ (e_n - mean_d)``, and with equal priors
    ``weights[n] = softmax(-distance[n] / (2 · temperature))``. A domain is added by its own images
    alone: it is one more mean. Domains without images are at infinite distance.

    Args:
        num_domains: D.
        num_features: E.

    Shape:
        ``mean``: (D, E). ``whitening``: (E, E), ``Σ⁻¹ = whiteningᵀ whitening``. ``count``: (D,),
        images behind each mean. ``threshold``: (D,), distance up to which an image may be of a
        domain. ``false_alarms``: (D,), share of a domain's new images that may exceed its
        threshold: a bound that holds for nine in ten draws of the images behind the threshold.
        ``temperature``: scalar.

    Reference:
        Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and
        Adversarial Attacks, NeurIPS 2018, arXiv:1807.03888, eq. 1 and 2.
        Differs: the covariance is shrunk, distances become weights through a temperature.
    """

    row_names = ("mean", "count", "threshold", "false_alarms")
    mean: Tensor
    whitening: Tensor
    count: Tensor
    temperature: Tensor
    threshold: Tensor
    false_alarms: Tensor

    def __init__(self, num_domains: int, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_domains, num_features))
        self.register_buffer("whitening", torch.eye(num_features))
        self.register_buffer("count", torch.zeros(num_domains, dtype=torch.long))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("threshold", torch.zeros(num_domains))
        self.register_buffer("false_alarms", torch.ones(num_domains))

    @property
    def known(self) -> Tensor:
        """Whether each domain has images behind it, (D,)."""
        return self.count > 0

    def forward(self, embedding: Tensor) -> Tensor:
        """Squared Mahalanobis distance (N, D) of embeddings (N, E) to the domains."""
        white = embedding @ self.whitening.T
        means = self.mean @ self.whitening.T
        distance = (white[:, None] - means).square().sum(2)
        return distance.masked_fill(~self.known, math.inf)

    def weights(self, distance: Tensor) -> Tensor:
        """Soft domain weights (N, D) for distances (N, D)."""
        return torch.softmax(-distance / (2 * self.temperature), 1)

    def is_known(self, distance: Tensor) -> Tensor:
        """Whether images at distances (N, D) may be of a known domain, (N,)."""
        return (distance <= self.threshold).any(1)

    @torch.no_grad()
    def fit(self, embedding: Tensor, domain: Tensor) -> None:
        """Means of the domains and their common covariance; temperature and thresholds are reset.

        Args:
            embedding: (N, E).
            domain: Labels (N,).

        Raises:
            ConditionError: No domain has two images, so that nothing is known of their spread.
        """
        num_domains, own = len(self.mean), embedding.double()
        member = nn.functional.one_hot(domain, num_domains).to(own)  # (N, D)
        count = member.sum(0)
        means = member.T @ own / count.clamp(min=1)[:, None]
        apart = own - means[domain]
        degrees = len(own) - int((count > 0).sum())
        if degrees < 1:
            raise ConditionError(
                f"encoder: {len(own)} images of {int((count > 0).sum())} domains to learn from, "
                "expected at least two of one domain"
            )
        covariance = shrunk_covariance(apart.T @ apart / degrees, degrees)
        self.mean.copy_(means)
        self.count.copy_(count.long())
        self.whitening.copy_(_whitening(covariance))
        self.temperature.fill_(1.0)
        self.threshold.fill_(math.inf).masked_fill_(~self.known, 0)
        self.false_alarms.zero_().masked_fill_(~self.known, 1)

    @torch.no_grad()
    def add(self, embedding: Tensor, domain: int, false_alarms: float = 0.01) -> None:
        """Give one domain mean and threshold from its images (N, E) alone; all else stays.

        The threshold is that of distances to the mean of the other images, which are
        ``(N / (N - 1))²`` times as large as those to the mean of all.
        """
        number = len(embedding)
        self.mean[domain] = embedding.double().mean(0).to(self.mean)
        self.count[domain] = number
        distance = self(embedding.to(self.mean))[:, domain] * (number / max(1, number - 1)) ** 2
        self._set_threshold(domain, distance, false_alarms)

    @torch.no_grad()
    def fit_thresholds(self, embedding: Tensor, domain: Tensor, false_alarms: float = 0.01) -> None:
        """Temperature and thresholds from images that the means were not made of.

        The temperature minimizes the negative log-likelihood of the labels. The threshold of a
        domain is the distance that a share ``false_alarms`` of its new images exceeds, whatever
        their distribution (an order statistic; the largest distance where there are too few
        images for the rate). A domain without held-out images gets that of all together.

        Args:
            embedding: (N, E) of held-out images.
            domain: Labels (N,).
            false_alarms: In (0, 1).

        Reference:
            Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599,
            sec. 4.2 (temperature); Vovk et al., Algorithmic Learning in a Random World, 2005,
            sec. 2.2 (rank of a new value among held-out ones).
        """
        distance = self(embedding.to(self.mean)).double()
        own = torch.arange(len(domain), device=distance.device)
        losses = [
            -torch.log_softmax(-distance / (2 * temperature), 1)[own, domain].mean()
            for temperature in _TEMPERATURES.to(distance.device)
        ]
        self.temperature.fill_(float(_TEMPERATURES[int(torch.stack(losses).argmin())]))
        apart = distance[own, domain]
        for label in self.known.nonzero().flatten().tolist():
            of_domain = apart[domain == label]
            self._set_threshold(label, of_domain if len(of_domain) else apart, false_alarms)

    def calibrate(self, embedding: Tensor, domain: Tensor, false_alarms: float = 0.01) -> None:
        """Deprecated name of `fit_thresholds`."""
        warnings.warn("calibrate is now fit_thresholds", FutureWarning, stacklevel=2)
        self.fit_thresholds(embedding, domain, false_alarms)

    def _set_threshold(self, domain: int, distance: Tensor, share: float) -> None:
        """What one more distance like these (N,) exceeds with this probability, if N allows."""
        number = len(distance)
        rank = min(math.ceil((1 - share) * (number + 1)), number)
        self.threshold[domain] = distance.sort().values[rank - 1].to(self.threshold)
        # The share beyond the rank-th of N draws has a beta distribution.
        self.false_alarms[domain] = float(betaincinv(number + 1 - rank, rank, _SURE))


def shrunk_covariance(covariance: Tensor, num_samples: int) -> Tensor:
    """Covariance (E, E) shrunk towards a multiple of the identity, ``(1 - ρ) S + ρ tr(S)/E · I``.

    S is that of ``num_samples`` samples about a known mean.

    Reference:
        Chen et al., Shrinkage Algorithms for MMSE Covariance Estimation, IEEE TSP 2010,
        arXiv:0907.4698, eq. 23 (oracle approximating shrinkage).
    """
    size = len(covariance)
    trace, squares = covariance.trace(), covariance.square().sum()
    above = (1 - 2 / size) * squares + trace.square()
    below = (num_samples + 1 - 2 / size) * (squares - trace.square() / size)
    share = 1.0 if float(below) <= 0 else min(1.0, float(above / below))
    identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    return (1 - share) * covariance + share * trace / size * identity


def _whitening(covariance: Tensor) -> Tensor:
    """W with ``WᵀW = covariance⁻¹``; directions without any spread count as nearly none."""
    values, vectors = torch.linalg.eigh(covariance)
    least = values.max().clamp(min=1e-12) * 1e-6
    whitening: Tensor = (vectors * values.clamp(min=float(least)).rsqrt()).T
    return whitening
