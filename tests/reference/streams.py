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


def runs(batches, memory=256):
    """Equal neighbours of a stream, less those of a shuffled one, in standard deviations."""
    seen, excess, variance = [], 0.0, 0.0
    for batch in batches:
        before, seen = seen[-1:], seen + batch
        recent = seen[-max(memory, len(batch)) :]
        drawn = list(itertools.combinations(recent, 2))
        if not drawn:
            continue
        chance = statistics.mean(one == other for one, other in drawn)
        for one, other in itertools.pairwise(before + batch):
            excess += (one == other) - chance
            variance += chance * (1 - chance)
    return excess / variance**0.5
