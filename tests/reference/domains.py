"""What is computed of domains, in loops over numbers."""

import torch
from torch.distributions import Normal, kl_divergence


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


def symmetric_divergence(mean, var, other_mean, other_var):
    """Both Kullback-Leibler divergences of two diagonal Gaussians, averaged over channels."""
    one = Normal(mean, var.sqrt())
    other = Normal(other_mean, other_var.sqrt())
    return float((kl_divergence(one, other) + kl_divergence(other, one)).mean())
