"""Metrics of findings from their definitions: loops over findings and pairs of samples."""

from __future__ import annotations

import math


def _columns(probabilities, target):
    """For each finding the (probability, answer) of the samples whose answer is known."""
    for k in range(len(target[0])):
        pairs = [(row[k], answers[k]) for row, answers in zip(probabilities, target, strict=True)]
        yield [(p, answer) for p, answer in pairs if answer >= 0]


def _mean(values):
    return sum(values) / len(values) if values else math.nan


def _two_sided(probabilities, target):
    for column in _columns(probabilities, target):
        present = [p for p, answer in column if answer == 1]
        absent = [p for p, answer in column if answer == 0]
        if present and absent:
            yield present, absent


def auroc(probabilities, target):
    """Share of pairs (present, absent) in the right order, ties by half; mean over findings."""
    areas = []
    for present, absent in _two_sided(probabilities, target):
        wins = sum((p > q) + 0.5 * (p == q) for p in present for q in absent)
        areas.append(wins / (len(present) * len(absent)))
    return _mean(areas)


def average_precision(probabilities, target):
    """Precision at the threshold of each present sample, averaged over them and findings."""
    found = []
    for present, absent in _two_sided(probabilities, target):
        total = 0.0
        for threshold in present:
            hits = sum(p >= threshold for p in present)
            total += hits / (hits + sum(q >= threshold for q in absent))
        found.append(total / len(present))
    return _mean(found)


def macro_f1(probabilities, target):
    scores = []
    for column in _columns(probabilities, target):
        hits = sum(p > 0.5 and answer == 1 for p, answer in column)
        false_alarms = sum(p > 0.5 and answer == 0 for p, answer in column)
        missed = sum(p <= 0.5 and answer == 1 for p, answer in column)
        if hits + false_alarms + missed:
            scores.append(2 * hits / (2 * hits + false_alarms + missed))
    return _mean(scores)


def accuracy(probabilities, target):
    known = [pair for column in _columns(probabilities, target) for pair in column]
    return sum((p > 0.5) == (answer == 1) for p, answer in known) / len(known)
