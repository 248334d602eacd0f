import pytest
import torch
from torch.testing import assert_close

from domainnorm.streams import DomainBelief
from tests.reference.streams import forward_procedure


def weights(count, domains=3, sharp=1.0):
    return torch.softmax(sharp * torch.randn(count, domains, dtype=torch.float64), 1)


def test_belief_is_that_of_the_forward_procedure():
    belief, given, hazards, found = DomainBelief(3), weights(40), [], []
    for row in given:
        hazards.append(belief.hazard)
        found.append(belief.update(row[None]))
    assert_close(torch.cat(found), torch.from_numpy(forward_procedure(given, hazards)))


def test_images_one_by_one_or_together_give_the_same():
    given = weights(20)
    one, other = DomainBelief(3), DomainBelief(3)
    assert_close(one.update(given), torch.cat([other.update(row[None]) for row in given]))


def test_a_lone_doubtful_image_does_not_change_the_domain():
    belief = DomainBelief(2)
    belief.update(torch.tensor([[0.95, 0.05]] * 30))
    assert float(belief.update(torch.tensor([[0.2, 0.8]]))[0, 0]) > 0.5


def test_a_change_is_followed_within_a_few_images():
    belief = DomainBelief(2)
    belief.update(torch.tensor([[0.99, 0.01]] * 50))
    assert float(belief.update(torch.tensor([[0.01, 0.99]] * 3))[-1, 1]) > 0.95


def test_rate_of_switches_is_learned():
    drive, shuffled = DomainBelief(2), DomainBelief(2)
    drive.update(torch.tensor([[1.0, 0.0]] * 300))
    shuffled.update(torch.eye(2).repeat(150, 1))
    assert drive.hazard < 0.02
    assert shuffled.hazard > 0.8


def test_sure_images_are_never_dropped():
    belief = DomainBelief(2)
    belief.update(torch.tensor([[1.0, 0.0]] * 1000))
    assert_close(belief.update(torch.tensor([[0.0, 1.0]])), torch.tensor([[0.0, 1.0]]))


def test_open_domain_takes_its_share_from_the_others():
    belief = DomainBelief(2)
    belief.open(0.25)
    assert belief.belief.tolist() == pytest.approx([0.375, 0.375, 0.25])


def test_state_goes_on():
    given = weights(600)
    one, other = DomainBelief(3), DomainBelief(3)
    one.update(given[:550])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.update(given[550:]), other.update(given[550:]))
