"""Batch norms folded into what feeds them, and left alone where that would change the outputs."""

import logging

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from timm.layers.std_conv import StdConv2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from domainnorm.backbones import convert_norms, fold_domain, fuse_norms
from domainnorm.errors import ConversionError
from tests.backbones.networks import DOMAINS, converted, randomize

IMAGE = torch.rand(2, 3, 64, 64, dtype=torch.float64)


def norms_of(network):
    return [path for path, module in network.named_modules() if isinstance(module, _BatchNorm)]


def scaled(found, wanted):
    size = wanted.abs().max()
    torch.testing.assert_close(found / size, wanted / size, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("test_resnet", 0),
        ("test_efficientnet", 0),
        ("test_byobnet", 0),
        ("resnet18", 0),
        ("mobilenetv3_small_050", 0),
        ("regnetx_002", 0),
        ("repvgg_a0", 0),
        ("repvit_m0_9", 0),
        ("densenet121", 62),  # norms before their convolutions
    ],
)
def test_fused_network_has_the_same_outputs(name, left):
    model = converted(name, dtype=torch.float64).eval()
    fused = fold_domain(model, "b", fuse=True)
    scaled(fused(IMAGE), model(IMAGE, "b"))
    assert len(norms_of(fused)) == left


def fused(network, example=IMAGE):
    """Outputs before and after, and the reasons of what stayed."""
    network = randomize(network).double().eval()
    wanted = network(example)
    reasons = fuse_norms(network, example)
    torch.testing.assert_close(network(example), wanted)
    return network, reasons


class UsedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return x + self.bn(x)


class ChangedBetween(UsedTwice):
    def forward(self, x):
        return self.bn(self.conv(x).relu_())


class WeightRead(UsedTwice):
    def forward(self, x):
        return self.bn(self.conv(x)) + F.conv2d(x, self.conv.weight)


class RunTwice(UsedTwice):
    def forward(self, x):
        return self.bn(self.conv(x)) + self.conv(x).mean()


class NormRead(UsedTwice):
    def forward(self, x):
        return self.bn(self.conv(x)) * self.bn.weight.mean()


@pytest.mark.parametrize("kind", [UsedTwice, ChangedBetween, WeightRead, NormRead])
def test_pair_that_would_change_the_outputs_is_left_with_the_reason(kind):
    network, reasons = fused(kind())
    assert reasons == {"bn": "folded into conv, it would change the outputs"}
    assert norms_of(network) == ["bn"]


def test_convolution_with_standardized_weights_is_left():
    _, reasons = fused(nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert reasons == {"1": "folded into 0, it would change the outputs"}


@pytest.mark.parametrize(
    "network",
    [RunTwice(), nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))],
    ids=["runs twice", "activation between"],
)
def test_norm_without_a_layer_of_its_own_is_left_with_the_reason(network):
    _, reasons = fused(network)
    assert list(reasons.values()) == ["no convolution or linear layer alone feeds it"]


def test_one_bad_pair_does_not_keep_the_good_ones():
    good = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    network, reasons = fused(nn.Sequential(UsedTwice(), good))
    assert list(reasons) == ["0.bn"]
    assert norms_of(network) == ["0.bn"]


@pytest.mark.parametrize(
    ("source", "norm", "shape"),
    [
        (nn.Linear(3, 4), nn.BatchNorm1d(4), (2, 3)),
        (nn.Conv1d(3, 4, 1, bias=False), nn.BatchNorm1d(4), (2, 3, 5)),
        (nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), (2, 3, 5, 5, 5)),
        (nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4), (2, 3, 5, 5)),
        (nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3, affine=False), (2, 3, 5, 5)),
    ],
    ids=["linear", "1d", "3d", "transposed", "depthwise"],
)
def test_kinds_of_layers_that_take_a_norm(source, norm, shape):
    example = torch.randn(shape, dtype=torch.float64)
    network, reasons = fused(nn.Sequential(source, norm), example)
    assert reasons == {}
    assert norms_of(network) == []


def test_transposed_convolution_of_several_groups_is_left():
    network = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4))
    _, reasons = fused(network, torch.randn(2, 4, 5, 5, dtype=torch.float64))
    assert list(reasons) == ["1"]


def test_activation_and_dropout_of_a_norm_stay():
    norm = BatchNormAct2d(4, act_layer=nn.SiLU, drop_layer=nn.Dropout)
    network, _ = fused(nn.Sequential(nn.Conv2d(3, 4, 1), norm))
    assert [type(module) for module in network[1]] == [nn.Dropout, nn.SiLU]


def test_what_stays_is_logged(caplog):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    model = convert_norms(network, None, DOMAINS)
    with caplog.at_level(logging.INFO, logger="domainnorm"):
        fold_domain(model, "a", fuse=True, example=IMAGE.float())
    assert caplog.messages == ["2 stays a layer: no convolution or linear layer alone feeds it"]


def test_example_the_network_does_not_take_is_answered():
    with pytest.raises(ConversionError, match=r"Sequential: cannot be run on \(2, 3, 64, 64\)"):
        fuse_norms(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), IMAGE)


def test_example_is_asked_for_where_none_is_known():
    model = convert_norms(nn.Sequential(nn.BatchNorm2d(4, affine=False)), None, DOMAINS)
    with pytest.raises(ConversionError, match="its input size is unknown; pass an example="):
        fold_domain(model, "a", fuse=True)
