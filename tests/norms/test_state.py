"""Everything that decides what a norm does next is in its state, and in its copies."""

import copy
import pickle

import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.norms import list_norms
from tests.norms.conditions import DOMAIN, apply, halves, make

SHAPE = (7, 4, 6, 5)
LEARNING = [name for name in list_norms() if halves(name)[1] != "style"]  # has parameters
every_norm = pytest.mark.parametrize("name", list_norms())


def step(norm, optimizer, name, x):
    optimizer.zero_grad()
    output = apply(norm, name, x)
    output.pow(3).mean().backward()
    optimizer.step()
    return output.detach()


@every_norm
def test_state_survives_saving_and_loading(name):
    norm, other = make(name, 4), make(name, 4)
    apply(norm, name, torch.randn(SHAPE))
    other.load_state_dict(copy.deepcopy(norm.state_dict()))
    x = torch.randn(SHAPE)
    assert torch.equal(apply(norm, name, x), apply(other, name, x))
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), other.buffers(), strict=True))


@every_norm
def test_copy_has_its_own_condition(name):
    norm = make(name, 4)
    other = copy.deepcopy(norm)
    with norm.slot.holding(Condition(domain=DOMAIN)):
        assert other.slot.current is None


@pytest.mark.parametrize("name", LEARNING)
def test_training_resumed_from_saved_state_goes_on_bit_for_bit(name):
    norm, other = make(name, 4), make(name, 4)
    batches = [torch.randn(SHAPE) for _ in range(4)]
    optimizer = torch.optim.SGD(norm.parameters(), lr=0.1, momentum=0.9)
    for x in batches[:2]:
        step(norm, optimizer, name, x)
    resumed = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    other.load_state_dict(copy.deepcopy(norm.state_dict()))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for x in batches[2:]:
        assert torch.equal(step(norm, optimizer, name, x), step(other, resumed, name, x))
    for key, value in norm.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


@every_norm
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
@pytest.mark.parametrize("training", [True, False])
def test_copy_computes_the_same_and_shares_no_memory(name, copied, training):
    norm = make(name, 4).train(training)
    apply(norm, name, torch.randn(SHAPE))
    other, x = copied(norm), torch.randn(SHAPE)
    assert torch.equal(apply(other, name, x), apply(norm, name, x))
    places = [{t.data_ptr() for t in n.state_dict().values()} for n in (norm, other)]
    assert not places[0] & places[1]
