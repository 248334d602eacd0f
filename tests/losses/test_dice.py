import pytest
import segmentation_models_pytorch as smp
import torch

from domainnorm.losses import dice_loss
from tests.reference.losses import dice


def batch(classes=4, void=0.3, dtype=torch.float64):
    logits = 2 * torch.randn(3, classes, 5, 6, dtype=dtype)
    target = torch.randint(0, classes, (3, 5, 6))
    return logits, target.masked_fill(torch.rand(3, 5, 6) < void, -1)


def rows(logits):
    return logits.movedim(1, -1).reshape(-1, logits.shape[1]).tolist()


@pytest.mark.parametrize("void", [0.0, 0.3, 0.95])
def test_equals_the_double_loop(void):
    logits, target = batch(void=void)
    expected = dice(rows(logits), target.flatten().tolist())
    assert dice_loss(logits, target).item() == pytest.approx(expected, rel=1e-12)


def test_equals_segmentation_models_pytorch_where_all_classes_are_there():
    logits, target = batch()
    assert set(target.unique().tolist()) == {-1, 0, 1, 2, 3}
    expected = smp.losses.DiceLoss("multiclass", ignore_index=-1)(logits, target)
    torch.testing.assert_close(dice_loss(logits, target), expected)


def test_absent_class_is_left_out_of_the_average():
    logits, target = batch()
    target[target == 2] = 0
    expected = smp.losses.DiceLoss("multiclass", ignore_index=-1)(logits, target)
    torch.testing.assert_close(dice_loss(logits, target), expected * 4 / 3)  # smp divides by K


def test_void_pixels_have_no_gradient():
    logits, target = batch()
    logits.requires_grad_()
    dice_loss(logits, target).backward()
    gradient = logits.grad.movedim(1, -1)
    assert torch.count_nonzero(gradient[target == -1]) == 0
    assert (gradient[target != -1].abs().sum(-1) > 0).all()


def test_gradient_equals_finite_differences():
    logits, target = batch()
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, target), logits.requires_grad_())


def test_other_void_values_are_taken():
    logits, target = batch()
    moved = target.masked_fill(target == -1, 255)
    torch.testing.assert_close(dice_loss(logits, moved, 255), dice_loss(logits, target))


def test_right_and_certain_masks_have_no_loss():
    _, target = batch(void=0)
    logits = 100 * torch.nn.functional.one_hot(target, 4).movedim(-1, 1).double()
    assert dice_loss(logits, target).item() == pytest.approx(0, abs=1e-12)


def test_nothing_but_void_is_zero_with_a_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = dice_loss(logits, torch.full((2, 4, 4), -1))
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


def test_half_precision_is_computed_in_float32():
    logits, target = batch(dtype=torch.float32)
    half = logits.bfloat16()
    found = dice_loss(half, target)
    torch.testing.assert_close(found, dice_loss(half.float(), target), rtol=0, atol=0)
