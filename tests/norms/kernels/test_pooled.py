import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.norms import create_norm
from domainnorm.norms.kernels.partition import own_groups, partition
from domainnorm.norms.kernels.pooled import Pool, plain_pooled_norm, pooled_norm
from tests.benchmarks.timer import saved_bytes
from tests.combinations import covering
from tests.norms.gradients import assert_same_gradients

EPS = 1e-5
GROUPS = {
    "mixed": partition(torch.tensor([0, 2, 0, 2]), 3),
    "sorted": partition(torch.tensor([0, 0, 2, 2]), 3),
    "own": own_groups(4, torch.device("cpu")),
}
layouts = pytest.mark.parametrize("channels_last", [False, True])


def inputs(shape, channels_last):
    x = torch.randn(shape, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    scale, shift = torch.randn(2, *shape[:2], dtype=torch.float64)
    return tuple(t.requires_grad_() for t in (x, scale, shift))


def strided_reference(x, scale, shift, groups, stride):
    """Moments of every ``stride``-th pixel, group after group."""
    labels = list(range(len(x))) if groups.group is None else groups.group.tolist()
    output = []
    for n, label in enumerate(labels):
        same = [m for m, other in enumerate(labels) if other == label]
        values = x[same][:, :, ::stride, ::stride]
        mean, var = values.mean((0, 2, 3)), values.var((0, 2, 3), unbiased=False)
        normed = (x[n] - mean[:, None, None]) / torch.sqrt(var + EPS)[:, None, None]
        output.append(scale[n, :, None, None] * normed + shift[n, :, None, None])
    return torch.stack(output)


@covering(
    groups=GROUPS,
    channels_last=[False, True],
    shape=[(4, 3, 5, 6), (4, 64, 34, 33)],
    stride=[1, 2, 3],
    norm=[pooled_norm, plain_pooled_norm],
)
def test_values_and_gradients_equal_the_reference(groups, channels_last, shape, stride, norm):
    groups = GROUPS[groups]
    given = inputs(shape, channels_last)
    found = norm(*given, Pool(groups, stride=stride), EPS).output
    wanted = strided_reference(*given, groups, stride)
    torch.testing.assert_close(found, wanted)
    assert_same_gradients(found, wanted, given)


@covering(groups=GROUPS, channels_last=[False, True], stride=[1, 2])
def test_first_and_second_derivatives_are_right(groups, channels_last, stride):
    pool = Pool(GROUPS[groups], stride=stride)
    given = inputs((4, 2, 3, 2), channels_last)

    def function(*tensors):
        return pooled_norm(*tensors, pool, EPS).output

    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given)


def test_empty_group_has_no_moments_and_no_values():
    pooled = pooled_norm(*inputs((4, 3, 5, 6), False), Pool(GROUPS["mixed"]), EPS)
    assert torch.equal(pooled.mean[1], torch.zeros(3, dtype=torch.float64))
    assert pooled.values[:, 0].tolist() == [60, 0, 60]


@layouts
@pytest.mark.parametrize("name", ["cin", "dsbn", "cbn"])
@pytest.mark.parametrize("labels", [[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]])
def test_nothing_of_the_size_of_the_input_is_kept_for_backward(name, channels_last, labels):
    x = torch.randn(4, 8, 40, 40)
    x = (x.to(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    norm = create_norm(name, 8, 2)
    with norm.slot.holding(Condition(domain=torch.tensor(labels))):
        kept = saved_bytes(lambda: norm(x), [x])
    assert kept <= 16 * 4 * (4 * 8)  # sixteen tensors (N, C) of four bytes
