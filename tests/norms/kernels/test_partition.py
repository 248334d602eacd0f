import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.norms.kernels.partition import by_domain, own_groups, partition


@pytest.mark.parametrize(
    ("labels", "lengths"),
    [([0, 0, 2], [2, 1]), ([2, 0, 0], [1, 2]), ([1, 1, 1], [3]), ([0, 2, 1], [1, 1, 1])],
)
def test_every_group_of_a_sorted_batch_is_one_block(labels, lengths):
    blocks = partition(torch.tensor(labels), 3).blocks
    assert blocks.lengths == lengths
    assert blocks.whole


def test_blocks_are_neighbours_of_one_group_in_the_order_of_the_batch():
    found = partition(torch.tensor([1, 1, 0, 1, 2, 2]), 4).blocks
    assert (found.lengths, found.labels, found.whole) == ([2, 1, 1, 2], [1, 0, 1, 2], False)
    assert found.group.tolist() == found.labels
    assert found.size[:, 0].tolist() == [2, 1, 1, 2]
    assert found.block.tolist() == [0, 0, 1, 2, 3, 3]
    assert (found.fewest, found.seen.tolist()) == (1, [1, 1, 1, 0])


def test_counts_tell_groups_whose_variance_is_known():
    known = partition(torch.tensor([0, 2, 2]), 3).counts(1)
    assert known.steps.tolist() == [0, 0, 1]
    assert known.divisor[:, 0].tolist() == [1, 1, 2]
    assert known.unbiased[2].item() == 2.0


def test_counts_are_made_once_for_each_map_size():
    groups = partition(torch.tensor([0, 1]), 2)
    assert groups.counts(9) is groups.counts(9)
    assert groups.counts(4).divisor[0].item() == 4


def test_size_holds_absent_groups():
    assert partition(torch.tensor([0, 2, 0]), 3).size[:, 0].tolist() == [2, 0, 1]


def test_partition_of_a_condition_is_made_once():
    condition = Condition(domain=torch.tensor([0, 1, 0]))
    made = by_domain(condition, condition.domain, 2)
    assert by_domain(condition, condition.domain, 2) is made
    assert by_domain(condition, condition.domain, 3) is not made


@pytest.mark.parametrize("groups", [partition(torch.tensor([1, 0]), 2), own_groups(2, "cpu")])
def test_gather_gives_each_sample_the_row_of_its_group(groups):
    table, order = torch.randn(2, 3), [0, 1] if groups.group is None else [1, 0]
    found, doubled = groups.gather(table, table * 2)
    assert torch.equal(found, table[order])
    assert torch.equal(doubled, table[order] * 2)
