"""What losses say of logits and targets that do not fit to each other."""

import pytest
import torch

from domainnorm.errors import DomainNormError
from domainnorm.losses import (
    dice_loss,
    domain_rows_loss,
    entropy_loss,
    focal_loss,
    masked_bce_loss,
)
from domainnorm.losses.checks import check_answers, check_classes

LOGITS = torch.zeros(2, 3, 4, 5)
of_classes = pytest.mark.parametrize("loss", [dice_loss, focal_loss])


def message(loss, *given, **options):
    with pytest.raises(DomainNormError) as raised:
        loss(*given, **options)
    return str(raised.value)


@of_classes
@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 4, 5), (4, 5), (2, 1, 4, 5), (2, 3, 4, 5), (0,)])
def test_target_of_another_size_is_named(loss, shape):
    found = message(loss, LOGITS, torch.zeros(shape, dtype=torch.long))
    assert found == (
        f"{loss.__name__}: target {shape} torch.int64 for logits (2, 3, 4, 5), expected labels "
        "(2, 4, 5), torch.int64; one class for each sample or pixel, target.long()"
    )


@of_classes
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32, torch.bool])
def test_target_of_another_type_is_named(loss, dtype):
    found = message(loss, LOGITS, torch.zeros(2, 4, 5, dtype=dtype))
    assert f"target (2, 4, 5) {dtype} for logits" in found


@of_classes
@pytest.mark.parametrize("label", [3, 255, -2, 2**40])
def test_label_out_of_range_is_named(loss, label):
    target = torch.full((2, 4, 5), -1)
    target[1, 2, 3] = label
    assert message(loss, LOGITS, target) == (
        f"{loss.__name__}: target has label {label}, expected 0 to 2 for 3 classes, or -1 for what "
        "does not count"
    )


@of_classes
def test_other_void_is_no_class(loss):
    target = torch.full((2, 4, 5), 255)
    assert loss(LOGITS, target, ignore_index=255) == 0
    assert "label -1, expected 0 to 2 for 3 classes, or 255" in message(
        loss, LOGITS, target.masked_fill(torch.rand(2, 4, 5) < 0.5, -1), ignore_index=255
    )


@of_classes
def test_empty_batch_is_no_error(loss):
    assert loss(LOGITS[:0], torch.zeros(0, 4, 5, dtype=torch.long)) == 0


@pytest.mark.parametrize("logits", [torch.zeros(3), torch.zeros(2, 3).long(), torch.zeros(2, 0)])
@pytest.mark.parametrize("loss", [dice_loss, focal_loss, masked_bce_loss, entropy_loss])
def test_logits_without_classes_are_named(loss, logits):
    target = () if loss is entropy_loss else (torch.zeros(2, dtype=torch.long),)
    assert message(loss, logits, *target) == (
        f"{loss.__name__}: logits {tuple(logits.shape)} {logits.dtype}, expected floats "
        "(N, K, ...): samples, then classes"
    )


def test_options_of_focal_are_named():
    target = torch.zeros(2, 4, 5, dtype=torch.long)
    assert message(focal_loss, LOGITS, target, -1) == "focal_loss: gamma -1, expected 0 or more"
    assert message(focal_loss, LOGITS, target, class_weight=torch.ones(4)) == (
        "focal_loss: class_weight (4,), expected (3,), a weight for each class"
    )


def test_answers_of_another_size_are_named():
    assert message(masked_bce_loss, torch.zeros(2, 3), torch.zeros(3, 2)) == (
        "masked_bce_loss: target (3, 2) for logits (2, 3), expected the same shape: an answer for "
        "each sample and class"
    )


def test_answers_above_one_are_named():
    target = torch.tensor([[0, 1, -1], [2, 0, 0]])
    assert message(masked_bce_loss, torch.zeros(2, 3), target) == (
        "masked_bce_loss: target has 2, expected 1 present, 0 absent, -1 unknown"
    )


@pytest.mark.parametrize("shape", [(), (0, 4), (3, 0)])
def test_tables_without_rows_are_named(shape):
    assert message(domain_rows_loss, [torch.zeros(2, 4), torch.zeros(shape)]) == (
        f"domain_rows_loss: a table {shape}, expected (D, C), a row per domain"
    )


def test_values_are_not_read_elsewhere():
    """Labels of a GPU would be waited for; the meta device refuses to be read."""
    logits, target = LOGITS.to("meta"), torch.zeros(2, 4, 5, dtype=torch.long, device="meta")
    check_classes("loss", logits, target)
    check_answers("loss", logits, target.new_zeros(LOGITS.shape))
    assert "expected labels" in message(dice_loss, logits, target[:1])
