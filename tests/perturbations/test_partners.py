"""Who a sample is mixed with."""

import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.perturbations import create_perturbation
from domainnorm.slot import ConditionSlot

both = pytest.mark.parametrize("name", ["mixstyle", "efdmix"])


def cross_domain(name):
    perturbation = create_perturbation(name, p=1.0, mode="cross_domain")
    perturbation.slot = ConditionSlot()
    return perturbation


def partners(perturbation, domain):
    domain = torch.tensor(domain)
    with perturbation.slot.holding(Condition(domain=domain)):
        return domain, perturbation.partners(torch.rand(len(domain), 2, 3), cross_domain=True)


@both
@pytest.mark.parametrize("domain", [[0, 0, 0, 0, 1], [2, 0, 1, 2, 0, 1, 1], [0, 1]])
def test_cross_domain_partners_are_of_other_domains_in_any_batch(name, domain):
    domain, partner = partners(cross_domain(name), domain * 20)
    assert (domain[partner] != domain).all()


def test_cross_domain_partners_are_any_sample_of_the_other_domains():
    perturbation, domain = cross_domain("mixstyle"), [0] + [1, 2] * 4
    drawn = {int(partners(perturbation, domain)[1][0]) for _ in range(200)}
    assert drawn == set(range(1, 9))


@both
@pytest.mark.parametrize("size", [1, 4])
def test_batch_of_one_domain_takes_partners_from_itself(name, size):
    _, partner = partners(cross_domain(name), [3] * size)
    assert ((partner >= 0) & (partner < size)).all()


@both
def test_random_partners_are_a_permutation(name):
    partner = create_perturbation(name).partners(torch.rand(9, 2, 3))
    assert sorted(partner.tolist()) == list(range(9))


@both
def test_cross_domain_outside_a_model_says_what_to_do(name):
    perturbation = create_perturbation(name, p=1.0, mode="cross_domain")
    with pytest.raises(ConditionError, match="insert it with `insert_after`, or set its `slot`"):
        perturbation(torch.rand(4, 2, 3))


@both
def test_cross_domain_with_soft_weights_asks_for_labels(name):
    perturbation = cross_domain(name)
    condition = Condition(weights=torch.full((4, 2), 0.5))
    message = "mode cross_domain needs one domain label per sample; pass domain="
    with perturbation.slot.holding(condition), pytest.raises(ConditionError, match=message):
        perturbation(torch.rand(4, 2, 3))
