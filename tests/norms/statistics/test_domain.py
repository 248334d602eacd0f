import copy

import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.norms import create_norm
from tests.reference.norms import LoopOfBatchNorms


def pair(shape, num_domains=3):
    loop = LoopOfBatchNorms(shape[1], num_domains, len(shape))
    for norm in loop.norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias)
    norm = create_norm("dsbn", shape[1], num_domains)
    norm.modulation.load_state_dict(
        {"scale": loop.stacked("weight").detach(), "shift": loop.stacked("bias").detach()}
    )
    return norm, loop


@pytest.mark.parametrize("shape", [(9, 4), (9, 4, 7), (9, 4, 5, 3), (9, 2, 3, 4, 2)])
@pytest.mark.parametrize(
    "labels", [[0, 1, 2] * 3, [2] * 9, [0, 0, 0, 0, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0, 1, 1, 1]]
)
def test_equals_a_loop_of_batch_norms_over_steps_and_in_evaluation(shape, labels):
    norm, loop = pair(shape)
    domain = torch.tensor(labels)
    for _ in range(3):
        x = torch.randn(shape)
        with norm.slot.holding(Condition(domain=domain)):
            torch.testing.assert_close(norm(x), loop(x, domain))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(norm.statistics.get_buffer(name), loop.stacked(name))
    norm.eval(), loop.eval()
    with norm.slot.holding(Condition(domain=domain)), torch.no_grad():
        torch.testing.assert_close(norm(x), loop(x, domain))


SORTED = torch.tensor([2, 2, 2, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("name", ["dsbn", "domain*shared", "domain*lowrank"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [3, 40])
def test_sorted_batch_has_the_gradients_of_a_shuffled_one(name, channels_last, size):
    norm = create_norm(name, 4, 4).double()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    order, results = torch.randperm(9), []
    x = torch.randn(9, 4, size, size, dtype=torch.float64)
    weight = torch.randn_like(x)
    for chosen in (torch.arange(9), order):
        layer, value = copy.deepcopy(norm), x[chosen]
        if channels_last:
            value = value.to(memory_format=torch.channels_last)
        value = value.detach().requires_grad_()
        with layer.slot.holding(Condition(domain=SORTED[chosen])):
            output = layer(value)
        assert output.stride() == value.stride()
        (output * weight[chosen]).sum().backward()
        back = chosen.argsort()
        gradients = [parameter.grad for parameter in layer.parameters()]
        buffers = list(layer.buffers())
        results.append([output.detach()[back], value.grad[back], *gradients, *buffers])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_sorted_batch_has_second_derivatives():
    norm = create_norm("dsbn", 2, 3).double()
    x = torch.randn(6, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    domain = torch.tensor([2, 2, 0, 0, 1, 1])

    def function(value, scale, shift):
        norm.modulation._parameters.update(scale=scale, shift=shift)
        with norm.slot.holding(Condition(domain=domain)):
            return norm(value)

    inputs = (x, *norm.modulation.parameters())
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_sorted_batch_in_bfloat16_is_close_to_float32():
    norm = create_norm("dsbn", 4, 3)
    x = torch.randn(9, 4, 12, 12)
    with norm.slot.holding(Condition(domain=SORTED)):
        wide = copy.deepcopy(norm)
        with wide.slot.holding(Condition(domain=SORTED)):
            exact = wide(x.bfloat16().float())
        output = norm(x.bfloat16())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, rtol=0.02, atol=0.03)


def test_embeddings_keep_a_scale_per_sample_in_a_sorted_batch():
    norm = create_norm("domain*hyper", 4, 3, embedding_size=2)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    other, x = copy.deepcopy(norm), torch.randn(9, 4, 5, 5)
    embedding, order = torch.randn(9, 2), torch.randperm(9)
    with norm.slot.holding(Condition(domain=SORTED, embedding=embedding)):
        output = norm(x)
    with other.slot.holding(Condition(domain=SORTED[order], embedding=embedding[order])):
        torch.testing.assert_close(other(x[order]), output[order], rtol=1e-4, atol=1e-4)


def test_soft_weights_on_one_domain_equal_its_label():
    norm, _ = pair((6, 4, 5, 5))
    domain = torch.tensor([0, 1, 2, 2, 1, 0])
    with norm.slot.holding(Condition(domain=domain)):
        norm(torch.randn(6, 4, 5, 5) * 2 + 1)
        x = torch.randn(6, 4, 5, 5)
        hard = norm.eval()(x)
    with norm.slot.holding(Condition(weights=torch.eye(3)[domain])):
        torch.testing.assert_close(norm(x), hard)


def test_soft_weights_mix_moments_as_a_mixture_distribution():
    norm = create_norm("dsbn", 1, 2).eval()
    values = [torch.randn(100_000) * 2 + 5, torch.randn(100_000) * 0.5 - 1]
    for row, sample in enumerate(values):
        norm.statistics.running_mean[row] = sample.mean()
        norm.statistics.running_var[row] = sample.var()
    both = torch.cat(values)[:, None]
    with norm.slot.holding(Condition(weights=torch.full((len(both), 2), 0.5))):
        output = norm(both)
    torch.testing.assert_close(output.mean(), torch.tensor(0.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(output.std(), torch.tensor(1.0), atol=1e-3, rtol=0)


def test_soft_weights_in_training_are_refused():
    norm = create_norm("dsbn", 4, 2, path="layer1.bn")
    condition = Condition(weights=torch.full((3, 2), 0.5))
    message = "layer1.bn: domain statistics in training need one label per sample"
    with norm.slot.holding(condition), pytest.raises(ConditionError, match=message):
        norm(torch.randn(3, 4, 2, 2))


def test_training_flag_of_a_copy_is_independent():
    norm, _ = pair((4, 4, 3, 3))
    other = copy.deepcopy(norm).eval()
    assert norm.statistics.training
    assert not other.statistics.training
