"""Norm classes of users."""

import pytest
import torch
from torch import nn

from domainnorm.backbones import convert_norms, fold_domain, register_norm_class
from domainnorm.backbones.conversion import kinds
from domainnorm.errors import ConversionError
from tests.backbones.networks import DOMAINS


class GainNorm(nn.Module):
    """RMS norm over the last axis with names of its own."""

    def __init__(self, size):
        super().__init__()
        self.gain = nn.Parameter(torch.rand(size) + 0.5)
        self.variance_epsilon = 1e-2

    def forward(self, x):
        mean_square = x.square().mean(-1, keepdim=True)
        return self.gain * x * torch.rsqrt(mean_square + self.variance_epsilon)


class ReLUBatchNorm(nn.BatchNorm2d):
    def __init__(self, num_features):
        super().__init__(num_features)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


@pytest.fixture(autouse=True)
def _table(monkeypatch):
    """Registrations of one test end with it."""
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))


def register_gain_norm():
    names = {"scale": "gain", "shift": None, "eps": "variance_epsilon"}
    register_norm_class(GainNorm, "rms", channels_last=True, **names)


def test_class_of_a_user_is_refused_until_it_is_registered():
    with pytest.raises(ConversionError, match=r"^0 \(GainNorm\): not a norm class that is known"):
        convert_norms(nn.Sequential(GainNorm(4)), None, DOMAINS)
    register_gain_norm()
    layer, x = GainNorm(4), torch.randn(3, 5, 4)
    wanted = layer(x)
    model = convert_norms(nn.Sequential(layer), None, DOMAINS)
    torch.testing.assert_close(model(x, ["a", "c", "b"]), wanted)
    assert [line.new for line in model.conversion] == ["crms"]


def test_subclass_of_batch_norm_is_refused_until_it_is_registered():
    layer, x = ReLUBatchNorm(4), torch.randn(3, 4, 5, 5)
    with pytest.raises(ConversionError, match="a subclass of BatchNorm2d, which may do more"):
        convert_norms(nn.Sequential(layer), None, DOMAINS)
    register_norm_class(ReLUBatchNorm, "batch", activation=True)
    wanted = layer(x)
    model = convert_norms(nn.Sequential(layer), None, DOMAINS)
    torch.testing.assert_close(model(x, "a"), wanted)
    assert wanted.min() == 0


def test_registered_layer_can_be_folded():
    register_gain_norm()
    model = convert_norms(nn.Sequential(GainNorm(4)), None, DOMAINS)
    nn.init.uniform_(model.backbone[0].modulation.scale)
    folded, x = fold_domain(model, "b"), torch.randn(3, 5, 4)
    assert type(folded[0]) is GainNorm
    torch.testing.assert_close(folded(x), model(x, "b"))


def test_registered_layer_with_a_fixed_eps_is_left_for_another_eps():
    register_norm_class(GainNorm, "rms", channels_last=True, scale="gain", shift=None, eps=1e-2)
    for eps, cls in ((1e-2, GainNorm), (0.5, nn.RMSNorm)):
        rule = {"all": {"name": "crms", "eps": eps}}
        model = convert_norms(nn.Sequential(GainNorm(4)), rule, DOMAINS)
        folded, x = fold_domain(model, "b"), torch.randn(3, 5, 4)
        assert type(folded[0]) is cls
        torch.testing.assert_close(folded(x), model(x, "b"))


def test_subclass_of_a_registered_class_is_not_included():
    register_gain_norm()

    class Twice(GainNorm):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(ConversionError, match=r"^0 \(Twice\): a subclass of GainNorm, which"):
        convert_norms(nn.Sequential(Twice(4)), None, DOMAINS)


def test_scale_of_another_shape_is_refused_with_the_path():
    register_gain_norm()
    with pytest.raises(ConversionError, match=r"^0 \(GainNorm\): its gain has the shape \(4, 1\)"):
        convert_norms(nn.Sequential(GainNorm((4, 1))), None, DOMAINS)


class ShiftedNorm(nn.Module):
    """Layer norm of channels with names of its own."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)
        self.beta = nn.Parameter(torch.rand(size))
        self.eps = 1e-2


@pytest.mark.parametrize(
    ("cls", "attributes", "message"),
    [
        (ShiftedNorm, {}, r"its 'beta' would be lost; say with register_norm_class\(ShiftedNorm"),
        (ShiftedNorm, {"scale": "beta"}, "its 'weight' would be lost"),
        (ShiftedNorm, {"shift": "beta", "eps": "epsilon"}, "has no attribute 'epsilon'; say with"),
        (GainNorm, {"eps": 1e-2}, "has no attribute 'normalized_shape'; say with"),
    ],
)
def test_tensor_or_constant_that_was_not_registered_is_refused(cls, attributes, message):
    register_norm_class(cls, "layer", **attributes)
    with pytest.raises(ConversionError, match=rf"^0 \({cls.__name__}\): {message}"):
        convert_norms(nn.Sequential(cls(4)), None, DOMAINS)


@pytest.mark.parametrize(
    ("arguments", "attributes", "message"),
    [
        (("BatchNorm", "batch"), {}, "got 'BatchNorm', expected a class of nn.Module"),
        ((int, "batch"), {}, "got <class 'int'>, expected a class of nn.Module"),
        ((GainNorm, "bach"), {}, r"\(GainNorm\): unknown family 'bach': did you mean 'batch'"),
        ((GainNorm, "rms"), {"weight": "gain"}, "'weight'; known attributes: channels_last, axes"),
    ],
)
def test_wrong_registration_is_refused(arguments, attributes, message):
    with pytest.raises(ConversionError, match=message):
        register_norm_class(*arguments, **attributes)
