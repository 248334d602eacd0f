import pytest
import torch
import torch.nn.functional as F

from domainnorm.losses import masked_bce_loss
from tests.reference.losses import masked_bce


def batch(unknown=0.4, dtype=torch.float64):
    logits = 2 * torch.randn(6, 3, dtype=dtype)
    target = torch.randint(0, 2, (6, 3))
    return logits, target.masked_fill(torch.rand(6, 3) < unknown, -1)


def test_equals_the_double_loop():
    logits, target = batch()
    expected = masked_bce(logits.tolist(), target.tolist())
    assert masked_bce_loss(logits, target).item() == pytest.approx(expected, rel=1e-12)


def test_all_known_is_the_binary_cross_entropy():
    logits, target = batch(unknown=0)
    expected = F.binary_cross_entropy_with_logits(logits, target.double())
    torch.testing.assert_close(masked_bce_loss(logits, target), expected)


def test_unknown_findings_have_no_gradient():
    logits, target = batch()
    logits.requires_grad_()
    masked_bce_loss(logits, target).backward()
    assert torch.equal(logits.grad == 0, target == -1)


def test_gradient_equals_finite_differences():
    logits, target = batch()
    assert torch.autograd.gradcheck(lambda x: masked_bce_loss(x, target), logits.requires_grad_())


def test_nothing_known_is_zero_with_a_gradient():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = masked_bce_loss(logits, torch.full((2, 3), -1))
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


def test_half_precision_is_computed_in_float32():
    logits, target = batch(dtype=torch.float32)
    half = logits.bfloat16()
    found = masked_bce_loss(half, target)
    torch.testing.assert_close(found, masked_bce_loss(half.float(), target), rtol=0, atol=0)
