"""What a converted layer keeps of the one it replaces, and of its place in the network."""

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from domainnorm.backbones import DomainModel, convert_norms
from domainnorm.norms import ConditionalNorm
from tests.backbones.networks import DOMAINS, plain, randomize


def test_activation_and_drop_are_the_same_objects():
    layer = BatchNormAct2d(4, act_layer=nn.SiLU, drop_layer=nn.Dropout)
    act, drop = layer.act, layer.drop
    norm = convert_norms(nn.Sequential(layer), None, DOMAINS).backbone[0]
    assert norm.act is act
    assert norm.drop is drop


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("affine", [True, False])
def test_dtype_is_kept_and_usable(dtype, affine):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=affine)).to(dtype)
    original = copy.deepcopy(randomize(network))
    model = convert_norms(network, "dsbn", DOMAINS)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.backbone[1].statistics.running_mean.dtype == dtype
    image = torch.randn(4, 3, 8, 8, dtype=dtype)
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-9
    output = model(image, ["a", "b", "c", "a"])
    assert output.dtype == dtype
    model.eval()
    torch.testing.assert_close(
        convert_norms(copy.deepcopy(original), "cbn", DOMAINS).eval()(image, "c"),
        original.eval()(image),
        rtol=tolerance,
        atol=tolerance,
    )


def test_device_is_kept():
    with torch.device("meta"):
        network = timm.create_model("test_resnet")
    model = convert_norms(network, "cin", DOMAINS)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_training_flag_of_each_layer_is_kept():
    network = plain("test_resnet").train()
    network.bn1.eval()
    model = convert_norms(network, "dsbn", DOMAINS)
    flags = {path: module.training for path, module in model.backbone.named_modules()}
    assert not flags["bn1"]
    assert not flags["bn1.statistics"]
    assert flags["layer1.0.bn1.statistics"]


@pytest.mark.parametrize("frozen", [("weight",), ("bias",), ("weight", "bias"), ()])
def test_frozen_scales_and_shifts_stay_frozen(frozen):
    layer = nn.BatchNorm2d(4)
    for name in frozen:
        layer.get_parameter(name).requires_grad_(False)
    modulation = convert_norms(nn.Sequential(layer), "dsbn", DOMAINS).backbone[0].modulation
    assert modulation.scale.requires_grad == ("weight" not in frozen)
    assert modulation.shift.requires_grad == ("bias" not in frozen)


@pytest.mark.parametrize("momentum", [0.3, None, 0.0])
def test_eps_momentum_and_batches_tracked_are_kept(momentum):
    layer = randomize(nn.BatchNorm2d(4, eps=1e-3, momentum=momentum))
    statistics = convert_norms(nn.Sequential(layer), "dsbn", DOMAINS).backbone[0].statistics
    assert (statistics.eps, statistics.momentum) == (1e-3, momentum)
    assert statistics.num_batches_tracked.tolist() == [3, 3, 3]


def test_layer_without_affine_stays_exact():
    original = randomize(nn.Sequential(nn.BatchNorm2d(4, affine=False)))
    model = convert_norms(copy.deepcopy(original), "dsbn", DOMAINS)
    image = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(model.eval()(image, "b"), original.eval()(image))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(4), (3, 4)),
        (nn.BatchNorm1d(4), (3, 4, 6)),
        (nn.BatchNorm2d(4), (3, 4, 5, 5)),
        (nn.BatchNorm3d(4), (3, 4, 3, 5, 5)),
        (BatchNormAct2d(4), (3, 4, 5, 5)),
    ],
)
def test_network_that_is_a_single_norm_can_be_converted(layer, shape):
    original = randomize(layer)
    model = convert_norms(copy.deepcopy(original), "dsbn", DOMAINS)
    assert isinstance(model.backbone, ConditionalNorm)
    image = torch.randn(shape)
    torch.testing.assert_close(model(image, "a"), original(image))


class Tied(nn.Module):
    """Uses one norm after both of its convolutions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.first = nn.BatchNorm2d(3)
        self.again = nn.Sequential(self.first)

    def forward(self, x):
        return self.again(self.conv2(self.first(self.conv1(x))))


def test_tied_norm_is_replaced_wherever_it_is_used():
    original = randomize(Tied())
    model = convert_norms(copy.deepcopy(original), "dsbn", DOMAINS)
    assert model.backbone.first is model.backbone.again[0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    image = torch.randn(3, 3, 9, 9)
    torch.testing.assert_close(model(image, "c"), original(image))


def test_conversion_returns_the_network_it_was_given():
    network = plain("test_resnet")
    model = convert_norms(network, "dsbn", DOMAINS)
    assert isinstance(model, DomainModel)
    assert model.backbone is network


def test_values_of_replaced_layers_are_kept_where_the_new_one_has_another_function():
    network = nn.Sequential(randomize(nn.BatchNorm2d(4)), randomize(nn.BatchNorm2d(4)))
    original = copy.deepcopy(network)
    model = convert_norms(network, {"0": "cin", "1": "dsbn"}, DOMAINS)
    kept, forgotten = (norm.origin for norm in model.norms())
    torch.testing.assert_close(dict(kept.state_dict()), dict(original[0].state_dict()))
    assert {tensor.device.type for tensor in forgotten.state_dict().values()} == {"meta"}
    assert len(list(model.parameters())) == 4
