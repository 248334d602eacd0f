"""Dropout of the condition: `table` and `lowrank` learn a row for samples of unknown domain."""

import pytest
import torch

from domainnorm.backbones import create_model
from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError
from tests.norms.modulations.conditions import DOMAIN, SHAPES, C, N, apply, double, make
from tests.reference.modulations import reference_scale_shift

both = pytest.mark.parametrize("name", ["table", "lowrank"])
IMAGE = torch.rand(4, 3, 64, 64)


def model(**options):
    rule = {"statistics": "batch", "modulation": "table", **options}
    return create_model("test_resnet", 4, rule, ["a", "b"])


@both
def test_unknown_domain_gets_the_unconditional_row_in_evaluation(name):
    norm, x = make(name, dropout=0.5).eval(), double(*SHAPES[2])
    found, wanted = norm.modulation(Condition(), x), reference_scale_shift(norm, Condition(), x)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.expand(N, C), other, rtol=0, atol=0)


@both
def test_known_domain_gets_its_own_row_in_evaluation(name):
    norm, x = make(name, dropout=0.9).eval(), double(*SHAPES[2])
    condition = Condition(domain=DOMAIN)
    found = norm.modulation(condition, x)
    torch.testing.assert_close(found, reference_scale_shift(norm, condition, x))


@both
def test_samples_below_the_probability_get_the_unconditional_row_in_training(name):
    norm, x = make(name, dropout=0.3), double(*SHAPES[2])
    chance = torch.tensor([0.1, 0.9, 0.29, 0.31, 0.5])
    scale, shift = norm.modulation(Condition(domain=DOMAIN, chance=chance), x)
    own = reference_scale_shift(norm, Condition(domain=DOMAIN), x)
    none = reference_scale_shift(norm, Condition(), x)
    dropped = torch.tensor([True, False, True, False, False])
    for found, conditional, unconditional in zip((scale, shift), own, none, strict=True):
        torch.testing.assert_close(found[dropped], unconditional[dropped])
        torch.testing.assert_close(found[~dropped], conditional[~dropped])


def test_layer_on_its_own_drops_at_the_given_rate():
    norm = make("table", dropout=0.3)
    condition = Condition(domain=torch.zeros(4000, dtype=torch.long))
    scale, _ = norm.modulation(condition, double(4000, C, 1))
    rate = (scale[:, 0] == norm.modulation.unconditional.scale[0, 0]).double().mean()
    assert rate == pytest.approx(0.3, abs=0.03)  # four standard deviations


@both
def test_unconditional_row_starts_at_the_pair_of_the_replaced_layer(name):
    norm, pair = make(name, dropout=0.5).eval(), (double(C), double(C))
    norm.modulation.start(*pair)
    for found, wanted in zip(norm.modulation(Condition(), double(*SHAPES[2])), pair, strict=True):
        torch.testing.assert_close(found[0], wanted, rtol=0, atol=0)


@both
def test_unconditional_row_learns(name):
    norm = make(name, dropout=0.5)
    chance = torch.linspace(0, 0.99, N)
    condition = Condition(domain=DOMAIN, chance=chance)
    apply(norm, double(*SHAPES[2]), condition).square().sum().backward()
    assert norm.modulation.unconditional.scale.grad.abs().sum() > 0
    assert norm.modulation.unconditional.shift.grad.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_unknown_domain_is_refused_unless_a_row_was_learned_for_it(training, dropout):
    norm = make("table", dropout=dropout).train(training)
    if dropout and not training:
        assert apply(norm, double(*SHAPES[2]), Condition()).shape == SHAPES[2]
    else:
        with pytest.raises(ConditionError, match="layer: needs the domain of each sample"):
            apply(norm, double(*SHAPES[2]), Condition())


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 2.0])
def test_impossible_probability_is_refused(dropout):
    with pytest.raises(DomainNormError, match=r"dropout: got .*, expected a probability in"):
        make("table", dropout=dropout)


def test_model_without_a_domain_works_in_evaluation():
    found = model(dropout=0.2).eval()
    assert found.unconditional
    assert found(IMAGE).shape == (4, 4)


def test_model_without_a_domain_is_refused_in_training():
    with pytest.raises(ConditionError, match="domain: missing; this model serves 2 domains"):
        model(dropout=0.2).train()(IMAGE)


def test_model_without_dropout_needs_the_domain():
    found = model().eval()
    assert not found.unconditional
    with pytest.raises(ConditionError, match="domain: missing; this model serves 2 domains"):
        found(IMAGE)


def test_sample_loses_its_domain_in_all_layers_or_in_none():
    found = model(dropout=0.5).train()
    seen = []

    def record(module, inputs, output):
        scale = output[0]
        seen.append((scale == module.unconditional.scale).all(1))

    with torch.no_grad():
        for norm in found.norms():
            norm.modulation.unconditional.scale.fill_(3)
            norm.modulation.register_forward_hook(record)
        found(torch.rand(16, 3, 64, 64), "a")
    assert 0 < seen[0].sum() < 16
    assert all(torch.equal(seen[0], dropped) for dropped in seen)


def test_block_of_a_condition_may_leave_out_the_domain_too():
    found = model(dropout=0.2).eval()
    with torch.no_grad(), found.condition(IMAGE) as backbone:
        torch.testing.assert_close(backbone(IMAGE), found(IMAGE))


def test_gradient_checkpointing_drops_the_same_samples():
    found, gradients = model(dropout=0.5).train(), []
    for checkpointing in (False, True):
        found.backbone.set_grad_checkpointing(checkpointing)
        found.zero_grad()
        torch.manual_seed(2)
        found(IMAGE, "a").square().sum().backward()
        gradients.append([norm.modulation.unconditional.scale.grad for norm in found.norms()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
