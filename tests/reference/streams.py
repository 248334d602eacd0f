"""Streams, written from the formulas."""

import itertools
import statistics

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


def runs(labels):
    """Equal neighbours of a stream, less their mean over all its orders, in its deviations."""
    equal = [
        sum(one == other for one, other in itertools.pairwise(order))
        for order in itertools.permutations(labels)
    ]
    return (equal[0] - statistics.mean(equal)) / statistics.pstdev(equal)
