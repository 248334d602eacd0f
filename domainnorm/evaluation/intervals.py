"""Intervals of a number over samples or groups, and its spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# 4 M float64 weights are 32 MiB: large enough that the loop costs nothing, small on any machine.
_MAX_WEIGHTS = 4_000_000


def percentile_intervals(
    metrics: Callable[[Tensor], dict[str, Tensor]],
    unit: Tensor,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of metrics over resamples of units.

    Args:
        metrics: Weights (N, B) → values (B,) of each metric, nan where undefined.
        unit: Number of the unit that each sample belongs to, (N,).
        confidence: Mass of the interval, in (0, 1).
        resamples: Number of resamples B.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end by name, over the resamples in which the metric is defined; nan when it
        is in none, or when there is only one unit.
    """
    if int(unit.max()) == 0:
        one = metrics(torch.ones(len(unit), 1, dtype=torch.float64))
        return {name: (float("nan"), float("nan")) for name in one}
    chunks = [metrics(weights) for weights in _draw(unit, resamples, seed)]
    tail = (1 - confidence) / 2
    intervals = {}
    for name in chunks[0]:
        values = torch.cat([chunk[name] for chunk in chunks]).numpy()  # (B,)
        known = values[~np.isnan(values)]
        ends = np.quantile(known, [tail, 1 - tail]) if known.size else (np.nan, np.nan)
        intervals[name] = (float(ends[0]), float(ends[1]))
    return intervals


def units_of(has_label: Tensor, groups: Sequence[str] | None) -> Tensor:
    """Number of the group that each labelled sample belongs to; without ``groups``, its own."""
    if groups is None:
        return torch.arange(int(has_label.sum()))
    names = np.asarray([str(group) for group in groups])[has_label.numpy()]
    return torch.from_numpy(np.unique(names, return_inverse=True)[1].reshape(-1))


@dataclass(frozen=True)
class Spread:
    """Values of one metric over seeds.

    Args:
        mean: Their mean; nan for none.
        std: Sample standard deviation (n − 1); nan for fewer than two.
        low: The smallest.
        high: The largest.
        n: How many.
    """

    mean: float
    std: float
    low: float
    high: float
    n: int


def seed_spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and range of a metric over seeds; nan values count as missing."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if known.size == 0:
        return Spread(float("nan"), float("nan"), float("nan"), float("nan"), 0)
    std = float(known.std(ddof=1)) if known.size > 1 else float("nan")
    return Spread(float(known.mean()), std, float(known.min()), float(known.max()), known.size)


def mean_of_known(values: Iterable[Any]) -> float:
    """Mean of the values that are numbers; nan of none."""
    known = [float(value) for value in values if not math.isnan(float(value))]
    return sum(known) / len(known) if known else math.nan


def _draw(unit: Tensor, resamples: int, seed: int) -> Iterator[Tensor]:
    """How often each sample is drawn, in blocks (N, b) of at most `_MAX_WEIGHTS` numbers."""
    generator = np.random.default_rng(seed)
    count = int(unit.max()) + 1
    block = max(1, _MAX_WEIGHTS // len(unit))
    for start in range(0, resamples, block):
        width = min(block, resamples - start)
        drawn = generator.integers(count, size=(width, count))
        drawn += count * np.arange(width)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=width * count).reshape(width, count)
        yield torch.from_numpy(times.T.astype(np.float64))[unit]
