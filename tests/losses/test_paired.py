import pytest
import torch
from torch.testing import assert_close

from domainnorm.losses import charbonnier_loss, gradient_loss
from tests.reference import paired


def images():
    return torch.rand(2, 3, 4, 5, dtype=torch.float64)


@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_charbonnier_equals_the_loop(eps):
    one, other = images(), images()
    expected = paired.charbonnier(one.tolist(), other.tolist(), eps)
    assert charbonnier_loss(one, other, eps).item() == pytest.approx(expected, rel=1e-12)


def test_charbonnier_is_smooth_where_images_are_equal():
    one = images().requires_grad_()
    charbonnier_loss(one, one.detach()).backward()
    assert_close(one.grad, torch.zeros_like(one))


def test_gradients_equal_the_loop():
    one, other = images(), images()
    expected = paired.gradients(one.tolist(), other.tolist())
    assert gradient_loss(one, other).item() == pytest.approx(expected, rel=1e-12)


def test_gradients_do_not_see_brightness():
    one = images()
    assert gradient_loss(one + 0.3, one).item() == pytest.approx(0, abs=1e-12)


def test_an_edge_the_other_way_round_is_no_such_edge():
    one = torch.zeros(1, 1, 2, 4)
    one[..., 2:] = 1
    assert gradient_loss(1 - one, one).item() > 0.5
