import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from domainnorm.losses import focal_loss
from tests.reference.losses import focal


def batch(classes=4, void=0.3, dtype=torch.float64):
    logits = 2 * torch.randn(3, classes, 5, 6, dtype=dtype)
    target = torch.randint(0, classes, (3, 5, 6))
    return logits, target.masked_fill(torch.rand(3, 5, 6) < void, -1)


def rows(logits):
    return logits.movedim(1, -1).reshape(-1, logits.shape[1]).tolist()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0, 0.0]])
def test_equals_the_loop(gamma, weight):
    logits, target = batch()
    expected = focal(rows(logits), target.flatten().tolist(), gamma, weight)
    tensor = None if weight is None else torch.tensor(weight)
    found = focal_loss(logits, target, gamma, class_weight=tensor)
    assert found.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0, 0.1])])
def test_without_focus_is_the_cross_entropy(weight):
    logits, target = batch(dtype=torch.float32)
    expected = F.cross_entropy(logits, target, weight=weight, ignore_index=-1)
    torch.testing.assert_close(focal_loss(logits, target, 0.0, class_weight=weight), expected)


def test_two_classes_equal_the_sigmoid_form_of_torchvision():
    logits, target = torch.randn(50, dtype=torch.float64), torch.randint(0, 2, (50,))
    both = torch.stack([torch.zeros_like(logits), logits], 1)
    expected = sigmoid_focal_loss(logits, target.double(), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(focal_loss(both, target), expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradient_equals_finite_differences(gamma):
    logits, target = batch()
    check = torch.autograd.gradcheck
    assert check(lambda x: focal_loss(x, target, gamma), logits.requires_grad_())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certain_prediction_has_a_finite_gradient(gamma):
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0, 0]), gamma).backward()
    assert logits.grad.isfinite().all()


def test_nothing_but_void_is_zero_with_a_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = focal_loss(logits, torch.full((2, 4, 4), -1))
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


def test_other_void_values_are_taken():
    logits, target = batch()
    moved = target.masked_fill(target == -1, 255)
    found = focal_loss(logits, moved, ignore_index=255)
    torch.testing.assert_close(found, focal_loss(logits, target))


def test_half_precision_is_computed_in_float32():
    logits, target = batch(dtype=torch.float32)
    half = logits.bfloat16()
    found = focal_loss(half, target)
    torch.testing.assert_close(found, focal_loss(half.float(), target), rtol=0, atol=0)
