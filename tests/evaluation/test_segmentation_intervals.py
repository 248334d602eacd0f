from __future__ import annotations

import numpy as np
import pytest
import torch

from domainnorm.evaluation import SegmentationCounts


def images(count: int = 30, classes: int = 3, seed: int = 0) -> SegmentationCounts:
    """Images of uneven size; the last class is in the first image alone."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, classes, classes)
    confusion = torch.randint(0, 50, shape, generator=generator)
    confusion += torch.diag(torch.full((classes,), 60))
    confusion[1:, -1] = confusion[1:, :, -1] = 0
    union = torch.randint(10, 40, (count, classes), generator=generator)
    return SegmentationCounts(
        confusion, torch.stack([union // 2, union], dim=2), torch.arange(count)
    )


def drawn(counts: SegmentationCounts, rows: np.ndarray) -> SegmentationCounts:
    return SegmentationCounts(counts.confusion[rows], counts.boundary[rows], counts.index[rows])


@pytest.mark.parametrize("metric", ["miou", "dice", "pixel_accuracy", "boundary_iou", "iou/0"])
def test_interval_equals_a_loop_over_resamples(metric: str) -> None:
    counts, generator = images(), np.random.default_rng(3)
    values = [
        drawn(counts, rows).metrics()[metric] for rows in generator.integers(30, size=(40, 30))
    ]
    interval = counts.intervals(confidence=0.8, resamples=40, seed=3)[metric]
    np.testing.assert_allclose(interval, np.quantile(values, [0.1, 0.9]), rtol=1e-9)


def test_interval_of_a_rare_class_is_over_the_resamples_that_contain_it() -> None:
    counts = images()
    low, high = counts.intervals(resamples=50)["iou/2"]
    value = counts.metrics()["iou/2"]
    assert low == pytest.approx(value)
    assert high == pytest.approx(value)


def test_copies_of_an_image_in_a_group_do_not_narrow_the_interval() -> None:
    counts, rows = images(20), np.repeat(np.arange(20), 5)
    groups = [f"slide {row:02}" for row in rows]
    over_groups = drawn(counts, rows).intervals(groups=groups)["miou"]
    assert over_groups == pytest.approx(counts.intervals()["miou"])
    assert np.ptp(over_groups) > 1.5 * np.ptp(drawn(counts, rows).intervals()["miou"])


def test_names_of_intervals_are_those_of_the_metrics() -> None:
    names = ["sky", "road", "car"]
    found = images().intervals(resamples=5, class_names=names)
    assert [*found, "n"] == list(images().metrics(class_names=names))
