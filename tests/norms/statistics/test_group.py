import pytest
import torch

from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.norms import create_norm
from tests.norms.conditions import apply


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(DomainNormError, match="num_groups: 32 groups of 48 channels are not of"):
        create_norm("cgn", 48)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 1, 1)])
def test_a_group_of_one_value_is_refused_with_the_path(shape):
    norm = create_norm("cgn", 4, num_groups=4, path="stem.bn")
    with pytest.raises(ConditionError, match=r"stem\.bn: group statistics of one value"):
        apply(norm, "cgn", torch.randn(shape), torch.zeros(2, dtype=torch.long))


def test_one_group_takes_all_channels_and_pixels_together():
    norm, x = create_norm("gn", 4, num_groups=1), torch.randn(2, 4, 3, 3) * 3 + 1
    output = apply(norm, "gn", x, torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(output.mean((1, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.var((1, 2, 3), unbiased=False), torch.ones(2))


def test_vectors_are_normalized_over_the_channels_of_a_group():
    norm, x = create_norm("gn", 6, num_groups=2), torch.randn(3, 6)
    output = apply(norm, "gn", x, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(output.view(3, 2, 3).mean(2), torch.zeros(3, 2), rtol=0, atol=1e-6)
