"""Batches that torch's own batch norm serves, all groups in one call or each in its own."""

import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm.condition import Condition
from domainnorm.norms import create_norm
from domainnorm.norms.kernels import batch_norm
from domainnorm.norms.kernels.partition import partition
from tests.norms.conditions import apply, condition_for, make
from tests.reference.norms import reference_norm

TURN = torch.arange(8) % 4
ORDERS = {
    "turn": TURN,
    "sorted": TURN.sort().values,
    "shuffled": torch.tensor([3, 0, 0, 2, 1, 3, 2, 1]),
}
SHAPES = [(8, 5, 9), (8, 4, 6, 5), (8, 3, 3, 4, 5), (8, 6)]
every_order = pytest.mark.parametrize("domain", ORDERS.values(), ids=list(ORDERS))


@pytest.fixture
def called(monkeypatch):
    """How often one call served all groups."""
    calls = []
    original = batch_norm._TurnsNorm.apply
    monkeypatch.setattr(
        batch_norm._TurnsNorm, "apply", lambda *given: calls.append(1) or original(*given)
    )
    return calls


@every_order
def test_turns_put_the_groups_one_after_another(domain):
    turns = partition(domain, 4).turns
    order = torch.arange(8) if turns.order is None else turns.order
    assert torch.equal(domain[order], TURN)
    if turns.order is not None:
        assert torch.equal(turns.order[turns.inverse], torch.arange(8))


def test_order_is_kept_where_groups_take_turns_already():
    assert partition(TURN, 4).turns.order is None


@pytest.mark.parametrize("domain", [[0, 1, 2], [0, 0, 1, 1], [0, 1, 2, 2], [0, 1, 2, 0, 1, 1]])
def test_unequal_or_absent_parts_take_no_turns(domain):
    assert partition(torch.tensor(domain), 4).turns is None


@every_order
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_values_gradients_and_moments_equal_the_reference(called, domain, shape, mean):
    norm = make("dsbn", shape[1], dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64) + mean
    weight = torch.randn(shape, dtype=torch.float64)
    results = []
    for function in (
        lambda norm, x: apply(norm, "dsbn", x, domain),
        lambda norm, x: reference_norm(norm, condition_for("dsbn", x, domain), x),
    ):
        own, value = copy.deepcopy(norm), x.clone().requires_grad_()
        output = function(own, value)
        (output * weight).sum().backward()
        gradients = [parameter.grad for parameter in own.parameters()]
        results.append([output.detach(), value.grad, *gradients])
    assert len(called) == 1
    for one, other in zip(*results, strict=True):
        assert_close(one, other, rtol=1e-7, atol=1e-8)


@every_order
def test_running_moments_are_those_of_a_layer_for_each_domain(called, domain):
    norm, x = make("dsbn", 4), torch.randn(8, 4, 6, 5)
    layers = [torch.nn.BatchNorm2d(4) for _ in range(4)]
    for _ in range(2):
        apply(norm, "dsbn", x, domain)
        for label, layer in enumerate(layers):
            layer(x[domain == label])
    assert len(called) == 2
    statistics = norm.statistics
    for label, layer in enumerate(layers):
        assert_close(statistics.running_mean[label], layer.running_mean)
        assert_close(statistics.running_var[label], layer.running_var)
        assert statistics.num_batches_tracked[label] == layer.num_batches_tracked


@every_order
def test_second_derivatives_are_right(domain):
    norm = make("dsbn", 2, dtype=torch.float64)
    x = torch.randn(8, 2, 3, dtype=torch.float64, requires_grad=True)
    state = {name: buffer.clone() for name, buffer in norm.named_buffers()}

    def function(value):
        with norm.slot.holding(condition_for("dsbn", value, domain)):
            fresh = {name: buffer.clone() for name, buffer in state.items()}
            return torch.func.functional_call(norm, fresh, (value,))

    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


@every_order
def test_activations_in_place_may_follow(called, domain):
    norm, x = make("dsbn", 4), torch.randn(8, 4, 6, 5, requires_grad=True)
    torch.relu_(apply(copy.deepcopy(norm), "dsbn", x, domain)).sum().backward()
    in_place, x.grad = x.grad, None
    torch.relu(apply(norm, "dsbn", x, domain)).sum().backward()
    assert len(called) == 2
    assert_close(in_place, x.grad)


@every_order
def test_narrow_input_gives_narrow_output_with_wide_moments(called, domain):
    norm = make("dsbn", 4)
    wide = torch.randn(8, 4, 6, 5) * 3 + 50
    narrow = wide.bfloat16()
    wanted = apply(copy.deepcopy(norm), "dsbn", narrow.float(), domain)
    found = apply(norm, "dsbn", narrow, domain)
    assert (len(called), found.dtype) == (2, torch.bfloat16)
    assert_close(found.float(), wanted, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["dsbn", "cbn", "domain*shared", "domain*lowrank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_evaluation_of_groups_in_turn_is_that_of_each_sample(monkeypatch, name, dtype):
    norm = make(name, 4).eval()
    x = (torch.randn(8, 4, 6, 5) * 3).to(dtype)
    calls, original = [], batch_norm.normalize_rows
    monkeypatch.setattr(
        batch_norm, "normalize_rows", lambda *_: calls.append(_[1].shape) or original(*_)
    )
    with torch.no_grad():
        found = apply(norm, name, x, TURN)
        alone = [apply(norm, name, x[i : i + 1], TURN[i : i + 1]) for i in range(8)]
    assert (len(calls), found.dtype, found.is_contiguous()) == (1, dtype, True)
    assert calls == [(4, 4)]  # rows of domains, not of samples
    assert_close(found, torch.cat(alone))


BLOCKS = batch_norm._BlocksNorm
# Who takes several groups, and from how many values on blocks share the last pass.
WAYS = {"rows": (None, 0), "blocks": (BLOCKS, 10**9), "blocks, one pass": (BLOCKS, 0)}


@pytest.mark.parametrize("name", ["dsbn", "domain*lowrank", "domain*shared"])
@pytest.mark.parametrize("labels", [[0, 0, 2, 2, 2], [2, 2, 0, 0, 1], [1, 1, 1, 1, 1]])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_way_gives_the_same_step(monkeypatch, name, labels, channels_last):
    norm, x = create_norm(name, 4, 3).double(), torch.randn(5, 4, 6, 5, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    weight, results = torch.randn_like(x), []
    for way, joint_from in WAYS.values():
        monkeypatch.setattr(batch_norm, "_prefers", lambda *_, way=way: way)
        monkeypatch.setattr(batch_norm, "_JOINT_FROM", joint_from)
        layer, leaf = copy.deepcopy(norm), x.detach().requires_grad_()
        with layer.slot.holding(Condition(domain=torch.tensor(labels))):
            output = layer(leaf)
        output.backward(weight)
        gradients = [parameter.grad for parameter in layer.parameters()]
        results.append([output.detach(), leaf.grad, *gradients, *layer.buffers()])
    for one, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_one_pass_over_blocks_stays_exact_in_float32(monkeypatch, mean):
    norm, results = create_norm("dsbn", 16, 3), []
    x = (torch.randn(5, 16, 12, 12) + mean).contiguous(memory_format=torch.channels_last)
    weight = torch.randn_like(x)
    for dtype, joint_from in ((torch.float64, 10**9), (torch.float32, 0)):
        monkeypatch.setattr(batch_norm, "_JOINT_FROM", joint_from)
        layer, leaf = copy.deepcopy(norm).to(dtype), x.detach().to(dtype).requires_grad_()
        with layer.slot.holding(Condition(domain=torch.tensor([0, 0, 2, 2, 2]))):
            layer(leaf).backward(weight.to(dtype))
        results.append(leaf.grad)
    exact, found = results
    # float32 holds 1000 + 1 to 6e-5, the mean likewise.
    torch.testing.assert_close(found, exact.float(), rtol=0, atol=3e-4 if mean else 1e-5)
