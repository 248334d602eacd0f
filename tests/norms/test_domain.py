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
