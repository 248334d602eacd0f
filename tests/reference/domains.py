"""What is computed of domains, in loops over numbers."""

import math

import torch


def mixture_moments(means, variances, weights):
    """Moments of a mixture of distributions, from their first and second raw moments."""
    num_domains, num_features = means.shape
    mean, var = torch.zeros(num_features), torch.zeros(num_features)
    for c in range(num_features):
        first = second = 0.0
        for d in range(num_domains):
            m, v = float(means[d, c]), float(variances[d, c])
            first += weights[d] * m
            second += weights[d] * (v + m * m)
        mean[c], var[c] = first, second - first * first
    return mean, var


def wasserstein(mean, var, other_mean, other_var):
    """2-Wasserstein distance between Gaussians whose covariances are general matrices.

    ``|m1 - m2|² + tr(S1 + S2 - 2 (S2^½ S1 S2^½)^½)``, here of diagonal ones.
    """
    first, second = torch.diag(var.double()), torch.diag(other_var.double())
    inner = root(root(second) @ first @ root(second))
    apart = (mean - other_mean).double().square().sum()
    return math.sqrt(max(float(apart + torch.trace(first + second - 2 * inner)), 0.0))


def root(matrix):
    """Square root of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
