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


def runs(batches, memory=256, counted=128):
    """Equal neighbours of a stream, less those of a shuffled one, in standard deviations."""
    seen, found = [], []
    for batch in batches:
        before, seen = seen[-1:], seen + batch
        recent = seen[-max(memory, len(batch)) :]
        drawn = list(itertools.combinations(recent, 2))
        pairs = list(itertools.pairwise(before + batch))
        if not drawn or not pairs:
            continue
        chance = statistics.mean(one == other for one, other in drawn)
        before = sum(weight for weight, _, _ in found)
        fades = min(1.0, max(0, counted - len(pairs)) / before) if before else 1.0
        found = [(weight * fades, excess, variance) for weight, excess, variance in found]
        found += [(1.0, (a == b) - chance, chance * (1 - chance)) for a, b in pairs]
    excess = sum(weight * above for weight, above, _ in found)
    variance = sum(weight * spread for weight, _, spread in found)
    return excess / max(1.0, variance) ** 0.5
