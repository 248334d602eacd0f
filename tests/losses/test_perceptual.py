import pytest
import torch
from torch.testing import assert_close

from domainnorm.errors import DomainNormError
from domainnorm.losses import content_loss, smoothed, style_loss, variation_loss
from tests.reference import perceptual

ASKED, DOMAIN = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1, 0])


def maps(number):
    return torch.randn(number, 3, 4, 5, dtype=torch.float64)


def test_smoothed_maps_equal_the_loop():
    given = maps(2)
    expected = torch.tensor(perceptual.smoothed(given.tolist()), dtype=torch.float64)
    assert_close(smoothed(given), expected)


def test_content_equals_the_loop():
    one, other = maps(2), maps(2)
    expected = perceptual.content(one.tolist(), other.tolist())
    assert content_loss(one, other).item() == pytest.approx(expected, rel=1e-12)


def test_style_equals_the_loop():
    made, real = maps(3), maps(4)
    expected = perceptual.style(made.tolist(), ASKED.tolist(), real.tolist(), DOMAIN.tolist())
    assert style_loss(made, ASKED, real, DOMAIN).item() == pytest.approx(expected, rel=1e-12)


def test_variation_equals_the_loop():
    image = maps(2)
    expected = perceptual.variation(image.tolist())
    assert variation_loss(image).item() == pytest.approx(expected, rel=1e-12)


def test_images_of_the_domain_have_its_style():
    real = maps(4)
    order = torch.tensor([2, 0, 3, 1])
    assert style_loss(real[order], DOMAIN[order], real, DOMAIN).item() == pytest.approx(0)


def test_one_image_need_not_be_as_the_average_of_its_domain():
    """Brightness that varies within the domain is no error."""
    real = torch.rand(2, 3, 4, 4) + torch.tensor([0.0, 5.0]).view(2, 1, 1, 1)
    label = torch.zeros(2, dtype=torch.long)
    assert style_loss(real.flip(0), label, real, label).item() == pytest.approx(0, abs=1e-6)


def test_what_differs_between_images_is_not_asked_for_within_one():
    """Two flat images of other brightness: patches of both in one image are not their style."""
    real = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    patches = torch.zeros(2, 3, 4, 4)
    patches[..., 2:] = 1
    label = torch.zeros(2, dtype=torch.long)
    flat = torch.full((2, 3, 4, 4), 0.5)
    loss = [style_loss(made, label, real, label).item() for made in (flat, patches)]
    assert loss[0] == pytest.approx(0)
    assert loss[1] > 1


def test_domain_without_a_real_image_is_named():
    with pytest.raises(DomainNormError, match=r"domain 2 is asked for.*\[0, 1\]"):
        style_loss(maps(1), torch.tensor([2]), maps(4), DOMAIN)


@pytest.mark.parametrize("loss", [content_loss, lambda one, other: variation_loss(one - other)])
def test_gradient_equals_finite_differences(loss):
    one = maps(2).requires_grad_()
    other = maps(2)
    assert torch.autograd.gradcheck(lambda given: loss(given, other), one)


def test_gradient_of_style_equals_finite_differences():
    real = maps(4)
    one = maps(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: style_loss(given, ASKED, real, DOMAIN), one)
