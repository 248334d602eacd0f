import math

import pytest
import torch

from domainnorm.backbones import create_model, layer_differences
from domainnorm.errors import ConditionError
from tests.reference.domains import symmetric_divergence

DOMAINS = ["a", "b", "c"]


def make(norm="dsbn"):
    model = create_model("test_resnet", norm=norm, domains=DOMAINS)
    for owned in model.domain_rows():
        if owned.tensor.is_floating_point():
            torch.nn.init.uniform_(owned.tensor, 0.5, 1.5)
    return model


def test_moments_differ_by_the_divergence_of_the_reference():
    model = make()
    for found, norm in zip(layer_differences(model, "a", "c"), model.norms(), strict=True):
        mean, var = norm.statistics.running_mean, norm.statistics.running_var
        var = var + norm.statistics.eps
        wanted = symmetric_divergence(mean[0], var[0], mean[2], var[2])
        assert found.path == norm.path
        assert found.moments == pytest.approx(float(wanted), rel=1e-4)


def test_scale_and_shift_differ_by_shares_of_the_scale():
    model = make("cbn")
    norm = next(model.norms())
    with torch.no_grad():
        norm.modulation.scale[0], norm.modulation.scale[1] = 3.0, 4.0
        norm.modulation.shift[0], norm.modulation.shift[1] = 0.0, 5.0
    found = layer_differences(model, "a", "b")[0]
    assert found.scale == pytest.approx(1 / math.sqrt(12.5))
    assert found.shift == pytest.approx(5 / math.sqrt(12.5))
    assert math.isnan(found.moments)


def test_domain_does_not_differ_from_itself():
    for layer in layer_differences(make(), "b", "b"):
        assert layer[1:] == pytest.approx((0, 0, 0), abs=1e-6)


def test_order_does_not_matter():
    model = make()
    one, other = layer_differences(model, "a", "b"), layer_differences(model, "b", "a")
    assert [layer.moments for layer in one] == pytest.approx([layer.moments for layer in other])


def test_layers_without_anything_of_domains_have_no_difference():
    assert all(
        math.isnan(v) for layer in layer_differences(make("bn"), "a", "b") for v in layer[1:]
    )


def test_unknown_domain_is_answered_with_the_known():
    with pytest.raises(ConditionError, match=r"unknown domain 'd'.*: a, b, c"):
        layer_differences(make(), "a", "d")
