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


def moments_with_prior(images, label, num_classes, mean, var, share, prior):
    """Moments per channel of a mixture of the classes in equal parts, each of which is a part of
    ``share · n / (n + prior / num_classes)`` of its n images, and of a distribution with ``mean``
    and ``var`` for the rest."""
    found = []
    for channel in range(images.shape[1]):
        parts = []  # weight, mean, variance
        for k in range(num_classes):
            own = [image[channel] for image, one in zip(images, label, strict=True) if one == k]
            part = share * len(own) / (len(own) + prior / num_classes)
            parts += [(part / len(own) / num_classes, one.mean(), one.var()) for one in own]
            parts.append(((1 - part) / num_classes, mean[channel], var[channel]))
        centre = sum(weight * m for weight, m, _ in parts)
        found.append((centre, sum(weight * (v + (m - centre) ** 2) for weight, m, v in parts)))
    return np.array(found).T


def entropy(probability):
    return -sum(p * math.log(p) for p in probability if p > 0)
