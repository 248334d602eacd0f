import pytest
import torch

from domainnorm.losses import patch_contrast_loss, patch_domain_loss, patch_taken_loss
from tests.reference import translated

DOMAIN, ASKED = torch.tensor([0, 2, 1, 0]), torch.tensor([1, 1, 0])


def maps(number):
    return torch.randn(number, 3, 4, 5, dtype=torch.float64)


@pytest.mark.parametrize("number", [3, 0])
def test_domains_of_patches_equal_the_loop(number):
    real, made, asked = maps(4), maps(number), ASKED[:number]
    expected = translated.domain_patches(
        real.tolist(), DOMAIN.tolist(), made.tolist(), asked.tolist()
    )
    found = patch_domain_loss(real, DOMAIN, made, asked).item()
    assert found == pytest.approx(expected, rel=1e-12)


def test_what_is_taken_equals_the_loop():
    made = maps(3)
    expected = translated.patch_taken(made.tolist(), ASKED.tolist())
    assert patch_taken_loss(made, ASKED).item() == pytest.approx(expected, rel=1e-12)


def test_contrast_equals_the_loop():
    one, other = maps(2), maps(2)
    expected = translated.patch_contrast(one.tolist(), other.tolist(), 0.3)
    assert patch_contrast_loss(one, other, 0.3).item() == pytest.approx(expected, rel=1e-12)


def test_classifier_that_is_right_loses_nothing():
    real = (2 * torch.eye(3) - 1)[DOMAIN][:, :, None, None].expand(4, 3, 2, 2)
    assert patch_domain_loss(real, DOMAIN, torch.full((3, 3, 2, 2), -1.0), ASKED).item() == 0


def test_what_is_said_of_other_domains_than_the_one_asked_for_is_free():
    made = maps(3)
    changed = made.clone()
    changed[:, 2] = 9
    assert patch_taken_loss(changed, ASKED).equal(patch_taken_loss(made, ASKED))


def test_contrast_sees_where_things_are_and_not_how_strong():
    one = maps(1)
    kept = patch_contrast_loss(3 * one, one).item()
    assert kept < patch_contrast_loss(one.flip(3), one).item()
    assert kept == pytest.approx(patch_contrast_loss(one, one).item())


def test_gradients_equal_finite_differences():
    made, real, other = maps(3).requires_grad_(), maps(4), maps(3)
    assert torch.autograd.gradcheck(lambda z: patch_domain_loss(real, DOMAIN, z, ASKED), made)
    assert torch.autograd.gradcheck(lambda z: patch_taken_loss(z, ASKED), made)
    assert torch.autograd.gradcheck(lambda f: patch_contrast_loss(f, other, 1.0), made)
