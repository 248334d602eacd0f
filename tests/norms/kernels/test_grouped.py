import pytest
import torch

from domainnorm.norms.kernels.partition import partition
from domainnorm.norms.kernels.pooled import Grouping, Pool, grouped_norm, plain_pooled_norm
from tests.combinations import covering
from tests.norms.gradients import assert_same_gradients

LABELS = {"mixed": [0, 2, 0, 2, 2], "sorted": [0, 0, 2, 2, 2], "one": [1, 1, 1, 1, 1]}
every_batch = pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
layouts = pytest.mark.parametrize("channels_last", [False, True])
whole = pytest.mark.parametrize("whole", [False, True])


def inputs(shape, channels_last):
    x = torch.randn(shape, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    scale, shift = torch.randn(2, 3, shape[1], dtype=torch.float64)
    return tuple(t.requires_grad_() for t in (x, scale, shift))


def ignored(mean, var, known):
    pass


def tracked(x, groups):
    """Means and variances of the groups."""
    found = []
    pair = torch.ones(3, x.shape[1]), torch.zeros(3, x.shape[1])

    def track(mean, var, known):
        found.extend([mean.clone(), var.clone()])

    grouped_norm(x, *pair, groups, 1e-5, track)
    return found


def grouping(labels, whole):
    rows = partition(torch.tensor(labels), 3)
    return Grouping(rows, partition(torch.zeros_like(rows.group), 1) if whole else rows)


@every_batch
@layouts
@whole
@pytest.mark.parametrize("shape", [(5, 3, 4, 5), (5, 64, 34, 33)])
def test_values_and_gradients_equal_the_plain_formula_per_sample(
    labels, channels_last, whole, shape
):
    x, scale, shift = given = inputs(shape, channels_last)
    groups = grouping(labels, whole)
    found = grouped_norm(*given, groups, 1e-5, ignored)
    pair = scale[groups.rows.group], shift[groups.rows.group]
    wanted = plain_pooled_norm(x, *pair, Pool(groups.groups), 1e-5).output
    torch.testing.assert_close(found, wanted)
    assert found.stride() == x.stride()
    assert_same_gradients(found, wanted, given)


@pytest.mark.parametrize(("labels", "calls"), [([0, 2, 0, 2, 2], 4), ([2, 2, 1, 1, 1], 2)])
@whole
def test_neighbours_of_one_row_share_a_call_of_the_kernel(labels, calls, whole, monkeypatch):
    made, measure = [], torch.batch_norm_update_stats

    def counted(part, *arguments):
        made.append(len(part))
        return measure(part, *arguments)

    monkeypatch.setattr(torch, "batch_norm_update_stats", counted)
    given = inputs((5, 64, 34, 33), True)
    grouped_norm(*given, grouping(labels, whole), 1e-5, ignored)
    assert len(made) == calls
    assert sum(made) == 5 * 34 * 33


@covering(1, labels=LABELS, whole=[False, True])
def test_first_and_second_derivatives_are_right(labels, whole):
    groups, given = grouping(LABELS[labels], whole), inputs((5, 2, 3, 2), False)

    def function(*tensors):
        return grouped_norm(*tensors, groups, 1e-5, ignored)

    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given)


@layouts
def test_large_mean_costs_no_precision_of_the_variance(channels_last):
    x = (torch.randn(6, 4, 20, 20) + 1000).requires_grad_()
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    groups = grouping([0, 1, 2, 0, 1, 2], False)
    _, var = tracked(x, groups)
    exact = torch.stack([x[[d, d + 3]].double().var((0, 2, 3), unbiased=False) for d in range(3)])
    torch.testing.assert_close(var, exact, rtol=1e-4, atol=1e-4)


def test_autocast_and_fast_matrix_products_leave_the_moments_as_they_are():
    x, groups = torch.randn(6, 4, 9, 9) + 30, grouping([0, 1, 2, 0, 1, 2], False)
    wanted = tracked(x, groups)
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = tracked(x, groups)
    finally:
        torch.set_float32_matmul_precision(former)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
