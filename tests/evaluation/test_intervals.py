from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from domainnorm.evaluation import (
    METRICS,
    EvaluationError,
    MetricSums,
    Predictions,
    seed_spread,
)


def coin(count: int, accuracy: float, seed: int = 0) -> Predictions:
    """Two balanced classes, predicted with confidence 0.8, right with probability ``accuracy``."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(count) % 2
    right = torch.rand(count, generator=generator) < accuracy
    guess = torch.where(right, target, 1 - target)
    probabilities = torch.full((count, 2), 0.2).scatter(1, guess[:, None], 0.8)
    return Predictions(probabilities, target, torch.arange(count))


def test_unit_weights_reproduce_the_point_metrics_exactly() -> None:
    predictions = coin(301, 0.7)
    sums = MetricSums.of(predictions, 15)
    weighted = sums.metrics(torch.ones(301, 7, dtype=torch.float64))
    expected = predictions.metrics()
    assert {name: set(values.tolist()) for name, values in weighted.items()} == {
        name: {expected[name]} for name in METRICS
    }


@pytest.mark.parametrize("metric", METRICS)
def test_interval_equals_a_loop_over_resamples(metric: str) -> None:
    predictions, generator = coin(60, 0.7), np.random.default_rng(3)
    values = []
    for rows in generator.integers(60, size=(40, 60)):
        drawn = Predictions(
            predictions.probabilities[rows], predictions.target[rows], torch.arange(60)
        )
        values.append(drawn.metrics()[metric])
    expected = np.quantile(values, [0.1, 0.9])
    interval = predictions.intervals(confidence=0.8, resamples=40, seed=3)[metric]
    np.testing.assert_allclose(interval, expected, rtol=1e-9)


def test_interval_of_accuracy_has_binomial_width() -> None:
    predictions = coin(2000, 0.8)
    accuracy = predictions.metrics()["accuracy"]
    low, high = predictions.intervals()["accuracy"]
    expected = 2 * 1.96 * math.sqrt(accuracy * (1 - accuracy) / 2000)
    assert high - low == pytest.approx(expected, rel=0.1)


def test_copies_of_one_sample_in_a_group_do_not_narrow_the_interval() -> None:
    single = coin(100, 0.8)
    rows = torch.repeat_interleave(torch.arange(100), 10)
    copied = Predictions(single.probabilities[rows], single.target[rows], torch.arange(1000))
    groups = [f"patient {int(row)}" for row in rows]
    over_groups = np.ptp(copied.intervals(groups=groups)["accuracy"])
    over_samples = np.ptp(copied.intervals()["accuracy"])
    alone = np.ptp(single.intervals()["accuracy"])
    assert over_groups == pytest.approx(alone, rel=0.1)
    assert over_groups > 2.5 * over_samples


def test_same_seed_gives_the_same_interval() -> None:
    predictions = coin(80, 0.6)
    assert predictions.intervals(seed=5) == predictions.intervals(seed=5)


def test_memory_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = coin(80, 0.6)
    whole = predictions.intervals(resamples=50)
    monkeypatch.setattr("domainnorm.evaluation.intervals._MAX_WEIGHTS", 80 * 7)
    assert predictions.intervals(resamples=50) == whole


def test_groups_of_unlabelled_samples_are_not_drawn() -> None:
    known = coin(40, 0.7)
    mixed = Predictions(
        torch.cat([known.probabilities, known.probabilities[:5]]),
        torch.cat([known.target, torch.full((5,), -1)]),
        torch.arange(45),
    )
    groups = [str(sample // 4) for sample in range(40)]
    expected = known.intervals(groups=groups)
    assert mixed.intervals(groups=[*groups, *(["other"] * 5)]) == expected


def test_one_group_gives_no_interval() -> None:
    low, high = coin(20, 0.7).intervals(groups=["slide"] * 20)["accuracy"]
    assert math.isnan(low)
    assert math.isnan(high)


def test_missing_group_name_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="19 group names for 20 samples"):
        coin(20, 0.7).intervals(groups=["slide"] * 19)


@pytest.mark.parametrize("settings", [{"confidence": 1.0}, {"confidence": 95}, {"resamples": 0}])
def test_arguments_out_of_range_are_an_error(settings: dict[str, float]) -> None:
    with pytest.raises(EvaluationError, match="expected a confidence between 0 and 1"):
        coin(20, 0.7).intervals(**settings)


def test_spread_uses_the_sample_standard_deviation() -> None:
    spread = seed_spread([0.5, 0.7])
    assert (spread.mean, spread.low, spread.high, spread.n) == (0.6, 0.5, 0.7, 2)
    assert spread.std == pytest.approx(0.2 / math.sqrt(2))


def test_spread_of_one_seed_has_no_standard_deviation() -> None:
    assert math.isnan(seed_spread([0.5]).std)


def test_missing_seed_is_left_out_of_the_spread() -> None:
    assert seed_spread([0.5, math.nan, 0.7]).n == 2


def test_spread_of_nothing_is_nan() -> None:
    assert math.isnan(seed_spread([]).mean)
