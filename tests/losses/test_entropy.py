import math

import pytest
import torch

from domainnorm.losses import entropy_loss
from tests.reference.losses import entropy


def test_equals_the_double_loop():
    logits = torch.randn(5, 7, dtype=torch.float64) * 3
    assert entropy_loss(logits).item() == pytest.approx(entropy(logits.tolist()), rel=1e-12)


def test_maps_are_averaged_over_pixels():
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    rows = logits.permute(0, 2, 3, 1).reshape(-1, 4)
    assert entropy_loss(logits).item() == pytest.approx(entropy(rows.tolist()), rel=1e-12)


def test_uniform_prediction_has_the_largest_entropy():
    torch.testing.assert_close(entropy_loss(torch.zeros(3, 8)), torch.tensor(math.log(8)))


def test_certain_prediction_has_none_and_a_finite_gradient():
    logits = torch.tensor([[1000.0, 0.0, -1000.0]], requires_grad=True)
    loss = entropy_loss(logits)
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(logits.grad, torch.zeros(1, 3))


def test_gradient_equals_finite_differences():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy_loss, logits)
