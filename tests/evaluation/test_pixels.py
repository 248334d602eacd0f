from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)
from torchmetrics.segmentation import DiceScore

from domainnorm.evaluation import (
    EvaluationError,
    SegmentationCounts,
    boundary_counts,
    confusion_counts,
)
from tests.reference import segmentation as reference

Masks = tuple[torch.Tensor, torch.Tensor]


def blobs(
    size: tuple[int, int, int] = (3, 24, 31), classes: int = 4, void: float = 0.1, seed: int = 0
) -> Masks:
    """Smooth random masks, true and predicted, with patches of void in the truth."""
    generator = torch.Generator().manual_seed(seed)
    count, height, width = size
    coarse = torch.randn(count, classes, 6, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noise = torch.nn.functional.interpolate(
        torch.randn(count, classes, 12, 12, generator=generator), (height, width)
    )
    target, predicted = fine.argmax(dim=1), (fine + 0.6 * noise).argmax(dim=1)
    hidden = torch.rand(count, 6, 6, generator=generator) < void
    hidden = torch.nn.functional.interpolate(hidden[:, None].float(), (height, width))[:, 0] > 0
    return predicted, target.masked_fill(hidden, -1)


def without(masks: Masks, label: int) -> Masks:
    """The class ``label`` taken out of truth and prediction."""
    predicted, target = masks
    return predicted.masked_fill(predicted == label, 0), target.masked_fill(target == label, 0)


def only_guessed(masks: Masks, label: int) -> Masks:
    """The class ``label`` taken out of the truth alone."""
    return masks[0], masks[1].masked_fill(masks[1] == label, 0)


CASES = {
    "usual": blobs(),
    "one image": blobs((1, 16, 16), seed=1),
    "two classes": blobs((2, 20, 17), 2, seed=2),
    "no void": blobs(void=0.0, seed=3),
    "class that is nowhere": without(blobs(seed=4), 2),
    "class only predicted": only_guessed(blobs(seed=5), 1),
}
cases = pytest.mark.parametrize("masks", CASES.values(), ids=CASES.keys())


def counts_of(masks: Masks, classes: int = 4, ratio: float = 0.02) -> SegmentationCounts:
    return SegmentationCounts(
        confusion_counts(*masks, classes),
        boundary_counts(*masks, classes, ratio),
        torch.arange(len(masks[0])),
    )


def arrays(masks: Masks) -> tuple[np.ndarray, np.ndarray]:
    return masks[0].numpy(), masks[1].numpy()


@cases
def test_confusion_equals_a_loop_over_pixels(masks: Masks) -> None:
    expected = reference.confusion(*arrays(masks), 4)
    assert confusion_counts(*masks, 4).sum(dim=0).tolist() == expected.tolist()


@cases
@pytest.mark.parametrize("ratio", [0.001, 0.02, 0.1, 2.0])
def test_boundaries_equal_iterated_erosion(masks: Masks, ratio: float) -> None:
    expected = reference.boundary_counts(*arrays(masks), 4, ratio)
    assert boundary_counts(*masks, 4, ratio).sum(dim=0).tolist() == expected.tolist()


@cases
def test_counts_of_a_batch_are_those_of_its_images(masks: Masks) -> None:
    images = [(predicted[None], target[None]) for predicted, target in zip(*masks, strict=True)]
    confusions = torch.cat([confusion_counts(*image, 4) for image in images])
    boundaries = torch.cat([boundary_counts(*image, 4, 0.02) for image in images])
    torch.testing.assert_close(confusion_counts(*masks, 4), confusions)
    torch.testing.assert_close(boundary_counts(*masks, 4, 0.02), boundaries)


@cases
@pytest.mark.parametrize(
    ("metric", "of_classes"),
    [
        ("miou", reference.ious),
        ("dice", reference.dices),
        ("boundary_iou", reference.boundary_ious),
    ],
)
def test_mean_over_classes_equals_slow_reference(masks: Masks, metric: str, of_classes) -> None:
    expected = reference.mean(of_classes(*arrays(masks), 4))
    assert counts_of(masks).metrics()[metric] == pytest.approx(expected, rel=1e-12)


@cases
@pytest.mark.parametrize(
    ("metric", "of_classes"),
    [
        ("iou", reference.ious),
        ("dice", reference.dices),
        ("boundary_iou", reference.boundary_ious),
    ],
)
def test_metric_of_a_class_equals_slow_reference(masks: Masks, metric: str, of_classes) -> None:
    names = ["sky", "road", "tree", "car"]
    found = counts_of(masks).metrics(class_names=names)
    expected = [math.nan if v is None else v for v in of_classes(*arrays(masks), 4)]
    assert [found[f"{metric}/{name}"] for name in names] == pytest.approx(expected, nan_ok=True)


@cases
def test_pixel_accuracy_equals_slow_reference(masks: Masks) -> None:
    expected = reference.pixel_accuracy(*arrays(masks), 4)
    assert counts_of(masks).metrics()["pixel_accuracy"] == pytest.approx(expected, rel=1e-12)


@cases
def test_miou_equals_torchmetrics(masks: Masks) -> None:
    index = MulticlassJaccardIndex(num_classes=4, average="macro", ignore_index=-1)
    assert counts_of(masks).metrics()["miou"] == pytest.approx(float(index(*masks)), abs=1e-6)


@cases
def test_dice_is_the_macro_f1_of_pixels_in_torchmetrics(masks: Masks) -> None:
    score = MulticlassF1Score(num_classes=4, average="macro", ignore_index=-1)
    assert counts_of(masks).metrics()["dice"] == pytest.approx(float(score(*masks)), abs=1e-6)


def test_dice_equals_that_of_torchmetrics_where_nothing_is_void() -> None:
    masks = CASES["no void"]
    score = DiceScore(
        num_classes=4, average="macro", input_format="index", aggregation_level="global"
    )
    assert counts_of(masks).metrics()["dice"] == pytest.approx(float(score(*masks)), abs=1e-6)


@cases
def test_pixel_accuracy_equals_torchmetrics(masks: Masks) -> None:
    accuracy = MulticlassAccuracy(num_classes=4, average="micro", ignore_index=-1)
    found = counts_of(masks).metrics()["pixel_accuracy"]
    assert found == pytest.approx(float(accuracy(*masks)), abs=1e-6)


def test_shifted_line_loses_more_of_its_boundary_than_a_shifted_square() -> None:
    target = torch.zeros(2, 60, 80, dtype=torch.int64)
    target[0, :, 40:42] = 1
    target[1, 10:50, 20:60] = 1
    found = boundary_counts(target.roll(1, dims=2), target, 2, 0.02)[:, 1].double()
    # Two pixels wide: of the square's ring of 40² − 36² pixels, 2 · 2 · 39 + 2 · 36 stay.
    expected = [1 / 3, 228 / (2 * 304 - 228)]
    assert (found[:, 0] / found[:, 1]).tolist() == pytest.approx(expected)


def test_void_has_no_boundary_of_its_own_and_changes_none_far_away() -> None:
    target = torch.zeros(1, 60, 80, dtype=torch.int64)
    target[0, 40:] = 1
    predicted = target.roll(1, dims=1)
    hidden = target.clone()
    hidden[0, 10:20, 30:50] = -1
    # Void 10 × 20, distance 2: its surroundings are boundary in truth and prediction alike.
    ring = 14 * 24 - 10 * 20
    found, plain = (boundary_counts(predicted, t, 2, 0.02)[0] for t in (hidden, target))
    assert (found - plain).tolist() == [[ring, ring], [0, 0]]


def test_images_without_any_class_are_dropped() -> None:
    predicted, target = CASES["usual"]
    hidden = torch.cat([target, torch.full_like(target[:1], -1)])
    found = counts_of((torch.cat([predicted, predicted[:1]]), hidden)).metrics()
    assert found == counts_of((predicted, target)).metrics()
    assert found["n"] == len(target)


def test_no_labelled_image_is_an_error() -> None:
    predicted, target = CASES["usual"]
    with pytest.raises(EvaluationError, match="none of 3 samples has a label"):
        counts_of((predicted, torch.full_like(target, -1))).metrics()


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c", "c"]])
def test_class_names_must_be_distinct_and_as_many_as_classes(names: list[str]) -> None:
    with pytest.raises(EvaluationError, match="for 4 classes; give one distinct name per class"):
        counts_of(CASES["usual"]).metrics(class_names=names)


@pytest.mark.parametrize(
    ("confusion", "boundary", "message"),
    [
        (torch.zeros(2, 3, 4).long(), torch.zeros(2, 3, 2).long(), r"confusion: shape \(2, 3, 4\)"),
        (torch.zeros(2, 3, 3), torch.zeros(2, 3, 2).long(), "confusion: dtype torch.float32"),
        (torch.zeros(2, 3, 3).long(), torch.zeros(2, 4, 2).long(), r"boundary: shape \(2, 4, 2\)"),
        (torch.full((2, 3, 3), -1), torch.zeros(2, 3, 2).long(), "negative numbers"),
    ],
)
def test_malformed_counts_are_refused(
    confusion: torch.Tensor, boundary: torch.Tensor, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        SegmentationCounts(confusion, boundary, torch.arange(2))


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


def test_scores_of_classes_are_their_ious_and_the_images_that_have_them() -> None:
    predicted, target = only_guessed(blobs(seed=5), 1)
    confusion = confusion_counts(predicted, target, 4)
    boundary = boundary_counts(predicted, target, 4, 0.02)
    counts = SegmentationCounts(confusion, boundary, torch.arange(len(target)))
    found = counts.by_class()
    assert found.values.tolist() == [counts.metrics()[f"iou/{k}"] for k in range(4)]
    assert found.images.tolist() == [
        sum(bool((one == k).any()) for one in target) for k in range(4)
    ]
    assert (float(found.values[1]), int(found.images[1])) == (0.0, 0)
