"""Losses that want sure predictions of all classes."""

import math

import pytest
import torch
from torch.testing import assert_close

from domainnorm.errors import DomainNormError
from domainnorm.losses import bnm_loss, entropy_loss, infomax_loss
from tests.reference.losses import infomax, probabilities, singular_values

both = pytest.mark.parametrize("fast", [False, True])


def logits(n, k):
    return 3 * torch.randn(n, k, dtype=torch.float64)


@pytest.mark.parametrize(("n", "k"), [(9, 4), (3, 5), (6, 2)])
def test_norm_is_the_sum_of_singular_values_by_samples(n, k):
    given = logits(n, k)
    values = singular_values([probabilities(row) for row in given.tolist()])
    assert float(bnm_loss(given)) == pytest.approx(-sum(values) / n, rel=1e-12)


@pytest.mark.parametrize(("n", "k"), [(9, 4), (3, 5)])
def test_fast_norm_is_that_of_the_longest_columns(n, k):
    given = logits(n, k)
    columns = zip(*[probabilities(row) for row in given.tolist()], strict=True)
    lengths = sorted((math.sqrt(sum(p * p for p in column)) for column in columns), reverse=True)
    assert float(bnm_loss(given, fast=True)) == pytest.approx(-sum(lengths[: min(n, k)]) / n)


@both
def test_norm_is_divided_by_samples_and_not_by_classes(fast):
    given = 100 * torch.eye(4).repeat(16, 1)  # 64 sure samples, 16 of each class
    # Four singular values of 4: divided by the smaller side, as a program does, it would be -4.
    assert float(bnm_loss(given, fast=fast)) == pytest.approx(-0.25)


@both
def test_collapse_to_one_class_is_worse_than_all_classes(fast):
    collapsed = 100 * torch.eye(4)[:1].repeat(64, 1)
    assert bnm_loss(collapsed, fast=fast) > bnm_loss(100 * torch.eye(4).repeat(16, 1), fast=fast)
    assert float(bnm_loss(collapsed, fast=fast)) == pytest.approx(-1 / 8)


def test_equal_predictions_have_a_finite_gradient():
    given = torch.zeros(8, 3, requires_grad=True)  # of rank one
    bnm_loss(given).backward()
    assert bool(given.grad.isfinite().all())


@pytest.mark.parametrize(("n", "k"), [(9, 4), (3, 5)])
def test_information_is_that_of_the_formula(n, k):
    given = logits(n, k)
    assert float(infomax_loss(given)) == pytest.approx(infomax(given.tolist()), rel=1e-12)


def test_information_is_largest_for_sure_and_balanced_predictions():
    assert float(infomax_loss(100 * torch.eye(4))) == pytest.approx(-math.log(4))
    assert float(infomax_loss(torch.zeros(5, 4))) == pytest.approx(0, abs=1e-6)
    one_class = 100 * torch.eye(4)[:1].repeat(5, 1)  # entropy alone finds nothing better
    assert float(entropy_loss(one_class)) == pytest.approx(0, abs=1e-6)
    assert float(infomax_loss(one_class)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [bnm_loss, infomax_loss])
def test_pixels_are_samples(loss):
    maps = torch.randn(2, 4, 3, 5)
    assert_close(loss(maps), loss(maps.movedim(1, -1).reshape(-1, 4)))
    with pytest.raises(DomainNormError, match=rf"{loss.__name__}: logits \(3,\)"):
        loss(torch.zeros(3))
