"""Rows of domains can be set from others."""

import copy

import pytest
import torch

from domainnorm.backbones import convert_norms, domain_parameters, set_rows
from domainnorm.errors import ConditionError
from tests.backbones.networks import DOMAINS, converted

IMAGE = torch.rand(4, 3, 64, 64)


@pytest.mark.parametrize("norm", ["dsbn", "cbn", "cin", "bn"])
def test_copied_rows_make_the_target_behave_as_the_source(norm):
    model = converted(norm=norm).eval()
    wanted = model(IMAGE, "a")
    set_rows(model, "c", ["a"])
    torch.testing.assert_close(model(IMAGE, "c"), wanted, rtol=0, atol=0)


def test_other_domains_keep_their_rows():
    model = converted().eval()
    wanted = {name: model(IMAGE, name) for name in ("a", "b")}
    set_rows(model, "c", ["a", "b"])
    for name, output in wanted.items():
        torch.testing.assert_close(model(IMAGE, name), output, rtol=0, atol=0)


def test_moments_of_several_sources_are_those_of_their_mixture():
    model = convert_norms(torch.nn.BatchNorm1d(2), "dsbn", DOMAINS)
    statistics = model.backbone.statistics
    samples = [torch.randn(500, 2) * scale + shift for scale, shift in ((2, 5), (0.5, -1))]
    for row, values in enumerate(samples):
        statistics.running_mean[row] = values.mean(0)
        statistics.running_var[row] = values.var(0, unbiased=False)
    set_rows(model, "c", ["a", "b"])
    var, mean = torch.var_mean(torch.cat(samples), 0, unbiased=False)
    torch.testing.assert_close(statistics.running_mean[2], mean)
    torch.testing.assert_close(statistics.running_var[2], var)


def test_scales_and_shifts_of_several_sources_are_averaged():
    model = converted()
    set_rows(model, "c", ["a", "b"])
    for table in domain_parameters(model):
        torch.testing.assert_close(table[2], (table[0] + table[1]) / 2)


def test_rows_of_the_stock_state_are_left_to_autograd():
    model = converted()
    set_rows(model, "c", ["a"])
    assert all(table.requires_grad and table.grad_fn is None for table in domain_parameters(model))


def test_domain_parameters_are_all_scales_and_shifts():
    model = converted()
    assert len(domain_parameters(model)) == 2 * len(list(model.norms()))


@pytest.mark.parametrize(
    ("target", "sources", "message"),
    [
        ("d", ["a"], "unknown domain 'd'"),
        ("c", ["a", "d"], "unknown domain 'd'"),
        ("c", [], "sources: none given for the rows of 'c'"),
    ],
)
def test_bad_names_are_refused_and_nothing_changes(target, sources, message):
    model = converted()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConditionError, match=message):
        set_rows(model, target, sources)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("modulation", ["lowrank", "hyper"])
def test_setting_a_domain_leaves_what_domains_share(modulation):
    sizes = {"lowrank": {"rank": 3}, "hyper": {"hidden": 3, "embedding_size": 3}}[modulation]
    model = converted(norm={"statistics": "batch", "modulation": modulation, **sizes})
    before = copy.deepcopy(model.state_dict())
    set_rows(model, "c", ["a"])
    rows = {"lowrank": ("scale_code", "shift_code"), "hyper": ("domain_embedding",)}[modulation]
    for name, tensor in model.state_dict().items():
        if name.endswith(rows):
            assert torch.equal(tensor[2], before[name][0])
            assert torch.equal(tensor[:2], before[name][:2])
        else:
            assert torch.equal(tensor, before[name])
