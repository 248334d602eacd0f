"""Streams, written from the formulas."""

import math

import numpy as np


def forward_procedure(likelihood, hazard):
    """Posterior of the state at every step of a chain that draws it anew with ``hazard[t]``.

    Rabiner 1989, eq. 20, with the transition matrix written out and a uniform start.
    """
    likelihood = np.asarray(likelihood, float)
    states = likelihood.shape[1]
    alpha, found = np.full(states, 1 / states), []
    for row, rate in zip(likelihood, hazard, strict=True):
        transition = (1 - rate) * np.eye(states) + rate / states
        alpha = np.array(
            [
                sum(alpha[i] * transition[i, j] for i in range(states)) * row[j]
                for j in range(states)
            ]
        )
        alpha = alpha / alpha.sum()
        found.append(alpha)
    return np.stack(found)


def moments_with_prior(images, mean, var, prior):
    """Moments per channel of a mixture: all values of ``images``, and ``prior`` images' worth of
    a distribution with ``mean`` and ``var``."""
    n, _, height, width = images.shape
    size = height * width
    found = []
    for channel in range(images.shape[1]):
        values = images[:, channel].reshape(-1)
        total = n * size + prior * size
        centre = (values.sum() + prior * size * mean[channel]) / total
        spread = ((values - centre) ** 2).sum()
        spread += prior * size * (var[channel] + (mean[channel] - centre) ** 2)
        found.append((centre, spread / total))
    return np.array(found).T


def entropy(probability):
    return -sum(p * math.log(p) for p in probability if p > 0)
