import pytest
import torch

from domainnorm.errors import DomainNormError
from domainnorm.norms import create_norm
from domainnorm.norms.modulations.by_domain import LowRankModulation, TableModulation


def count(modulation):
    return sum(parameter.numel() for parameter in modulation.parameters())


@pytest.mark.parametrize(("features", "domains", "rank"), [(64, 8, 4), (512, 100, 2), (16, 3, 1)])
def test_number_of_parameters_is_that_of_the_documented_formula(features, domains, rank):
    found = count(LowRankModulation(features, domains, rank=rank))
    assert found == 2 * (features + rank * features + domains * rank)


@pytest.mark.parametrize(("domains", "fewer"), [(5, False), (6, True)])
def test_parameters_are_fewer_than_those_of_a_table_from_the_documented_number_on(domains, fewer):
    # (1 + r) C / (C - r) = 5 · 64 / 60 = 5.33 domains
    lowrank, table = LowRankModulation(64, domains), TableModulation(64, domains)
    assert (count(lowrank) < count(table)) == fewer


def test_rows_differ_by_a_matrix_of_the_rank():
    modulation = LowRankModulation(16, 9, rank=2).double()
    with torch.no_grad():
        modulation.scale_code.normal_()
    rows = modulation.scale + modulation.scale_code @ modulation.scale_basis
    assert torch.linalg.matrix_rank(rows - modulation.scale) == 2


def test_rows_learn_from_their_start():
    modulation = LowRankModulation(8, 3)
    (modulation.scale_code @ modulation.scale_basis).sum().backward()
    assert modulation.scale_code.grad.abs().min() > 0


def test_rank_below_one_is_refused():
    with pytest.raises(DomainNormError, match="rank: got 0, expected 1 or more; 'shared' has no"):
        create_norm("batch*lowrank", 8, 3, rank=0)
