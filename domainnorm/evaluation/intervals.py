"""How far a number can be trusted: intervals over samples or groups, and spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from domainnorm.evaluation.metrics import METRICS, MetricSums
from domainnorm.evaluation.predictions import EvaluationError, Predictions

# 4 M float64 weights are 32 MiB: large enough that the loop costs nothing, small on any machine.
_MAX_WEIGHTS = 4_000_000


def bootstrap_intervals(
    predictions: Predictions,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    bins: int = 15,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of every metric.

    Samples of one patient, slide or sequence resemble each other; resampling them one by one makes
    intervals too narrow. With ``groups``, whole groups are drawn instead. A resample averages over
    the classes it happens to contain, as the point metrics do.

    Args:
        predictions: Predictions of N samples; those without a label are dropped.
        confidence: Mass of the interval, in (0, 1).
        resamples: Number of resamples B.
        bins: Bins of the calibration error.
        groups: Name of the group of each of the N samples.
        seed: Seed of the resampling.

    Returns:
        For each name of `METRICS` the lower and upper end; nan when there is only one sample
        or one group, from which no interval can be estimated.

    Raises:
        EvaluationError: No sample has a label; a group name is missing; an argument out of range.

    Reference:
        Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7, 1979;
        groups: Field and Welsh, Bootstrapping Clustered Data, JRSS B 69, 2007.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise EvaluationError(
            f"bootstrap_intervals: confidence={confidence}, resamples={resamples}; expected a "
            "confidence between 0 and 1 and at least one resample"
        )
    unit = _units(predictions, groups)
    sums = MetricSums.of(predictions, bins)
    if int(unit.max()) == 0:
        return {name: (float("nan"), float("nan")) for name in METRICS}
    chunks = [sums.metrics(weights) for weights in _draw(unit, resamples, seed)]
    tail = (1 - confidence) / 2
    intervals = {}
    for name in METRICS:
        values = torch.cat([chunk[name] for chunk in chunks]).numpy()  # (B,)
        low, high = np.quantile(values, [tail, 1 - tail])
        intervals[name] = (float(low), float(high))
    return intervals


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


def _units(predictions: Predictions, groups: Sequence[str] | None) -> Tensor:
    """Number of the unit of resampling that each labelled sample belongs to (N,)."""
    labelled = predictions.target >= 0
    if groups is None:
        return torch.arange(int(labelled.sum()))
    if len(groups) != len(predictions):
        raise EvaluationError(
            f"bootstrap_intervals: {len(groups)} group names for {len(predictions)} samples; "
            "give one per sample, in the order of the predictions"
        )
    names = np.asarray([str(group) for group in groups])[labelled.numpy()]
    return torch.from_numpy(np.unique(names, return_inverse=True)[1].reshape(-1))


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
