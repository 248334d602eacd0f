"""Domains can be added to a model, taken away and mixed."""

import copy

import pytest
import torch
from torch import nn

from domainnorm.backbones import (
    add_domain,
    convert_norms,
    interpolate_domains,
    load_model,
    remove_domain,
    save_model,
)
from domainnorm.errors import ConditionError
from tests.backbones.networks import DOMAINS, NORMS, make
from tests.reference.domains import mixture_moments

IMAGE = torch.rand(4, 3, 64, 64)
every_norm = pytest.mark.parametrize("norm", NORMS, ids=str)


@every_norm
def test_new_domain_starts_as_the_one_it_is_made_from(norm):
    model = make(norm)
    wanted = model(IMAGE, "b")
    add_domain(model, "new", start="b")
    assert model.domain_names == (*DOMAINS, "new")
    torch.testing.assert_close(model(IMAGE, "new"), wanted, rtol=0, atol=0)


@every_norm
def test_other_domains_keep_their_outputs_when_one_comes_and_goes(norm):
    model = make(norm)
    wanted = model(IMAGE, "b")
    add_domain(model, "new")
    torch.testing.assert_close(model(IMAGE, "b"), wanted, rtol=0, atol=0)
    remove_domain(model, "a")
    assert model.domain_names == ("b", "c", "new")
    torch.testing.assert_close(model(IMAGE, "b"), wanted, rtol=0, atol=0)


@every_norm
def test_domain_that_came_and_went_leaves_no_trace(norm):
    model = make(norm)
    before = copy.deepcopy(model.state_dict())
    add_domain(model, "new")
    remove_domain(model, "new")
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@every_norm
def test_interpolated_domain_is_what_soft_weights_give(norm):
    model = make(norm)
    weights = {"c": 0.7, "a": 0.3}
    interpolate_domains(model, "between", weights)
    soft = torch.tensor([[0.3, 0, 0.7, 0]]).expand(len(IMAGE), -1)
    torch.testing.assert_close(model(IMAGE, "between"), model(IMAGE, weights=soft))


def test_interpolated_moments_are_those_of_the_mixture():
    model = make()
    statistics = next(model.norms()).statistics
    wanted = mixture_moments(statistics.running_mean, statistics.running_var, [0.2, 0.5, 0.3])
    interpolate_domains(model, "mix", {"a": 0.2, "b": 0.5, "c": 0.3})
    torch.testing.assert_close(statistics.running_mean[3], wanted[0])
    torch.testing.assert_close(statistics.running_var[3], wanted[1])


def test_new_domain_starts_as_the_mean_of_all():
    model, other = make(), make()
    other.load_state_dict(model.state_dict())
    add_domain(model, "new")
    interpolate_domains(other, "new", dict.fromkeys(DOMAINS, 1 / 3))
    torch.testing.assert_close(model(IMAGE, "new"), other(IMAGE, "new"))


def test_batch_moments_of_a_model_of_one_domain_do_not_grow():
    model = make("cbn", domains=("only",))
    add_domain(model, "new")
    norm = next(model.norms())
    assert len(norm.statistics.running_mean) == 1
    assert len(norm.modulation.scale) == 2


def test_added_domain_can_be_trained_beside_the_others():
    model = make().train()
    next(model.norms()).modulation.scale.requires_grad_(False)
    add_domain(model, "new")
    model(IMAGE, ["new", "a", "new", "b"]).sum().backward()
    first, *others = model.norms()
    assert not first.modulation.scale.requires_grad
    assert all(norm.modulation.scale.grad[3].abs().sum() > 0 for norm in others)


def test_changed_model_is_stored_and_loaded(tmp_path):
    model = make()
    add_domain(model, "new", start="c")
    save_model(model, tmp_path / "m.safetensors", "test_resnet", list("vwxyz"))
    other = make(domains=("new", "a"))
    load_model(other, tmp_path / "m.safetensors")
    torch.testing.assert_close(other(IMAGE, "new"), model(IMAGE, "new"), rtol=0, atol=0)


def test_a_domain_more_costs_what_the_model_says():
    model = make()
    cost = model.bytes_per_domain

    def size():
        tensors = [t for name, t in model.state_dict().items() if "num_batches" not in name]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    before = size()
    add_domain(model, "new")
    assert size() - before == cost == model.bytes_per_domain


def test_tied_norms_grow_once():
    norm = nn.BatchNorm2d(3)
    model = convert_norms(nn.Sequential(norm, norm), "dsbn", DOMAINS).eval()
    add_domain(model, "new")
    assert len(model.backbone[0].modulation.scale) == 4
    assert model(IMAGE, "new").shape == IMAGE.shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: add_domain(m, "b"), r"domain 'b': this model has it already \(a, b, c\)"),
        (lambda m: add_domain(m, ""), "domain: got '', expected a name of printable"),
        (lambda m: add_domain(m, "x\n"), r"domain: got 'x\\n', expected a name of printable"),
        (lambda m: add_domain(m, "d", "e"), "start: unknown domain 'e': known: mean, a, b, c"),
        (lambda m: remove_domain(m, "d"), "unknown domain 'd': known: a, b, c"),
        (lambda m: interpolate_domains(m, "b", {"a": 1}), "domain 'b': this model has it"),
        (lambda m: interpolate_domains(m, "d", {"e": 1}), "unknown domain 'e'"),
        (lambda m: interpolate_domains(m, "d", {"d": 1}), "unknown domain 'd'"),
        (lambda m: interpolate_domains(m, "d", {}), "weights of 'd': got , expected numbers"),
        (
            lambda m: interpolate_domains(m, "d", {"a": 1.5, "b": -0.5}),
            "weights of 'd': got a 1.5, b -0.5, expected numbers ≥ 0 that sum to one",
        ),
        (lambda m: interpolate_domains(m, "d", {"a": float("nan")}), "weights of 'd': got a nan"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(change, message):
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConditionError, match=message):
        change(model)
    assert model.domain_names == DOMAINS
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_only_domain_stays():
    model = make(domains=("only",))
    with pytest.raises(ConditionError, match="'only' is the only one of this model; add another"):
        remove_domain(model, "only")
