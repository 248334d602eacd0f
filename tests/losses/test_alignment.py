"""Losses between two domains or classifiers equal their formulas; each trap of theirs is a test."""

import pytest
import torch
from torch.testing import assert_close

from domainnorm.errors import DomainNormError
from domainnorm.losses import (
    adversarial_loss,
    bnm_loss,
    confusion_loss,
    coral_loss,
    discrepancy_loss,
    infomax_loss,
    mmd_loss,
)
from tests.reference.losses import coral, discrepancy, mmd


def samples(count, size=4, shift=0.0):
    return torch.randn(count, size, dtype=torch.float64) + shift


LOSSES = {
    "adversarial": adversarial_loss,
    "coral": coral_loss,
    "mmd": mmd_loss,
    "discrepancy": discrepancy_loss,
    "bnm": lambda one, other: bnm_loss(one),
    "fbnm": lambda one, other: bnm_loss(one, fast=True),
    "infomax": lambda one, other: infomax_loss(one),
    "confusion": lambda one, other: confusion_loss(one),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (3, 8), (2, 2)])
def test_distance_of_covariances_is_that_of_the_paper(n, m):
    source, target = 2 * samples(n), samples(m, shift=1)
    expected = coral(source.tolist(), target.tolist())
    assert float(coral_loss(source, target)) == pytest.approx(expected, rel=1e-12)


def test_distance_of_covariances_has_the_factor_of_the_paper_and_no_means():
    source = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])  # variance 2 of one of two features
    assert float(coral_loss(source, torch.ones(5, 2))) == pytest.approx(2**2 / (4 * 2**2))
    assert float(coral_loss(source, source + 7)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (3, 8), (2, 2)])
@pytest.mark.parametrize(("count", "exponents"), [(5, (-2, -1, 0, 1, 2)), (1, (0,))])
def test_discrepancy_of_kernels_is_the_unbiased_estimate(n, m, count, exponents):
    source, target = samples(n), samples(m, shift=1)
    expected = mmd(source.tolist(), target.tolist(), exponents)
    assert float(mmd_loss(source, target, count)) == pytest.approx(expected, rel=1e-10)


def test_discrepancy_of_kernels_follows_the_scale_of_the_features():
    source, target = samples(5), samples(7, shift=1)
    assert_close(mmd_loss(1e3 * source + 50, 1e3 * target + 50), mmd_loss(source, target))


def test_estimate_of_equal_domains_is_zero_in_the_mean():
    found = [float(mmd_loss(samples(4), samples(9))) for _ in range(400)]
    mean = sum(found) / 400
    assert min(found) < 0
    assert abs(mean) < 4 * torch.tensor(found).std() / 20


def test_equal_samples_have_a_finite_gradient():
    source = torch.ones(3, 2, requires_grad=True)
    mmd_loss(source, torch.ones(4, 2)).backward()
    assert_close(source.grad, torch.zeros(3, 2))


def test_classifiers_differ_as_in_the_paper():
    first, second = samples(5, 3), samples(5, 3)
    expected = discrepancy(first.tolist(), second.tolist())
    assert float(discrepancy_loss(first, second)) == pytest.approx(expected, rel=1e-12)


def test_pixels_of_classifiers_are_samples():
    first, second = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    rows = [one.movedim(1, -1).reshape(-1, 3) for one in (first, second)]
    assert_close(discrepancy_loss(first, second), discrepancy_loss(*rows))


def test_weights_of_the_adversary_count_within_their_domain():
    source, target = samples(3, 1), samples(4, 1)
    weights = samples(3, 1).exp(), samples(4, 1).exp()
    found = adversarial_loss(source, target, *weights)
    assert_close(adversarial_loss(source, target, 5 * weights[0], weights[1]), found)
    assert_close(
        adversarial_loss(source, target, torch.ones(3, 1)), adversarial_loss(source, target)
    )


# The others have constants that hang on what they are given.
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("mmd", "confusion")])
def test_gradient_equals_finite_differences(name):
    given = samples(5, 3).requires_grad_(), samples(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], given)


def test_width_of_kernels_takes_no_gradient():
    source, target = samples(4).requires_grad_(), samples(6)
    mmd_loss(source, target, 1).backward()
    everything = torch.cat([source.detach(), target])
    width = torch.cdist(everything, everything).square().mean()

    def loss(one):
        within, other, across = (
            torch.exp(-(x[:, None] - y).square().sum(-1) / width)
            for x, y in ((one, one), (target, target), (one, target))
        )
        return (within.sum() - 4) / 12 + (other.sum() - 6) / 30 - 2 * across.mean()

    (expected,) = torch.autograd.grad(loss(source), source)
    assert_close(source.grad, expected)


@every_loss
def test_half_precision_and_autocast_are_computed_in_float32(loss):
    first, second = torch.randn(6, 4).bfloat16(), torch.randn(6, 4).bfloat16()
    expected = loss(first.float(), second.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(first, second)
        wide = loss(first.float(), second.float())
    assert found.dtype == torch.float32
    assert_close(found, expected, rtol=0, atol=0)
    assert_close(wide, expected, rtol=0, atol=0)


@pytest.mark.parametrize("loss", [coral_loss, mmd_loss])
@pytest.mark.parametrize("shapes", [((1, 3), (4, 3)), ((4, 3), (4, 2)), ((4, 3, 1), (4, 3, 1))])
def test_samples_that_do_not_fit_are_named(loss, shapes):
    one, other = map(torch.zeros, shapes)
    with pytest.raises(DomainNormError) as raised:
        loss(one, other)
    assert str(raised.value).startswith(f"{loss.__name__}: source {shapes[0]} and target")


def test_number_of_kernels_and_shapes_of_logits_are_checked():
    with pytest.raises(DomainNormError, match="num_kernels 0"):
        mmd_loss(samples(3), samples(3), 0)
    with pytest.raises(DomainNormError, match=r"discrepancy_loss: logits \(3, 4\) and \(2, 4\)"):
        discrepancy_loss(samples(3), samples(2))
