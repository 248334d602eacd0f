"""What a conversion refuses, and what the message says to do."""

import pytest
import timm
import torch
from timm.layers.grn import GlobalResponseNorm
from torch import nn

from domainnorm.backbones import convert_norms
from domainnorm.errors import ConversionError
from tests.backbones.networks import DOMAINS, converted


class ScaledBatchNorm(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class HomemadeNorm(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_features))

    def forward(self, x):
        return x * self.gain[:, None, None]


def test_subclass_of_a_norm_is_refused_with_its_path_and_base():
    network = nn.Sequential(
        nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1), ScaledBatchNorm(4))
    )
    message = r"^1\.1 \(ScaledBatchNorm\): a subclass of BatchNorm2d, which may do more than it"
    with pytest.raises(ConversionError, match=message):
        convert_norms(network, "dsbn", DOMAINS)


def test_unknown_norm_is_refused_with_the_way_to_register_it():
    network = nn.Sequential(nn.BatchNorm2d(4), HomemadeNorm(4))
    message = r"^1 \(HomemadeNorm\): not a norm class that is known; .*register_norm_class"
    with pytest.raises(ConversionError, match=message):
        convert_norms(network, "dsbn", DOMAINS)


def test_many_refused_layers_are_counted():
    network = nn.Sequential(*(HomemadeNorm(4) for _ in range(5)))
    with pytest.raises(ConversionError, match=r"^0 .*, 1 .*, 2 \(HomemadeNorm\) and 2 more: not"):
        convert_norms(network, "dsbn", DOMAINS)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.LayerNorm((4, 4)), r"normalizes over the axes \(4, 4\) together"),
        (nn.RMSNorm((3, 4)), r"normalizes over the axes \(3, 4\) together"),
        (nn.BatchNorm2d(4, track_running_stats=False), "batch norm without running statistics"),
        (nn.InstanceNorm2d(4, track_running_stats=True), "instance norm with running statistics"),
    ],
)
def test_layer_without_a_conditional_form_is_refused_with_its_path(layer, message):
    network = nn.Sequential(nn.BatchNorm2d(4), layer)
    where = r"leave it unconditioned with `where`, e.g. where=\['all', '!1'\]"
    with pytest.raises(
        ConversionError, match=rf"^1 \({type(layer).__name__}\): {message}.*{where}"
    ):
        convert_norms(network, None, DOMAINS)


def hooked():
    layer = nn.BatchNorm2d(4)
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def test_layer_with_hooks_is_refused():
    with pytest.raises(ConversionError, match=r"^0 \(BatchNorm2d\): has hooks, which the new"):
        convert_norms(nn.Sequential(hooked()), None, DOMAINS)


def test_refused_network_is_left_as_it_was():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ConversionError, match=r"^1 \(BatchNorm2d\): batch norm without running"):
        convert_norms(network, "dsbn", DOMAINS)
    assert type(network[0]) is nn.BatchNorm2d


def test_unknown_norm_outside_where_is_left_alone():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
    model = convert_norms(network, "dsbn", DOMAINS, where=["all", "!1"])
    assert type(model.backbone[1]) is nn.GroupNorm


def test_layer_that_normalizes_pixels_is_not_a_norm_layer():
    class Normalize(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3, 1, 1))

        def forward(self, x):
            return x - self.mean

    model = convert_norms(nn.Sequential(Normalize(), nn.BatchNorm2d(3)), "dsbn", DOMAINS)
    assert [layer.path for layer in model.conversion] == ["1"]


def test_global_response_norm_is_not_a_norm_layer():
    network = nn.Sequential(GlobalResponseNorm(4), nn.LayerNorm(4))
    model = convert_norms(network, None, DOMAINS)
    assert [layer.path for layer in model.conversion] == ["1"]


class ConvNormAct(nn.Module):
    """A container with a norm in its name, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.bn(self.conv(x)) * self.gain


def test_container_is_not_taken_for_a_norm_by_its_name():
    model = convert_norms(nn.Sequential(ConvNormAct()), None, DOMAINS)
    assert [layer.path for layer in model.conversion] == ["0.bn"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_nfnet", "no norm layer to convert, its convolutions are standardized instead"),
        ("vgg11", "no norm layer to convert, it has no normalization layer; take vgg11_bn"),
        ("resmlp_12_224", "no norm layer to convert, its Affine layers scale and shift without"),
        (
            "test_efficientnet_evos",
            r"^bn1 \(EvoNorm2dS0\).* and 10 more: EvoNorm2dS0 normalizes and",
        ),
        (
            "resnetv2_50d_frn",
            r"^stem.norm1 \(FilterResponseNormTlu2d\).*: FilterResponseNormTlu2d div",
        ),
    ],
)
def test_architecture_without_a_convertible_norm_is_refused_with_the_reason(name, message):
    with torch.device("meta"):
        network = timm.create_model(name)
    with pytest.raises(ConversionError, match=rf"{message}.*a backbone with batch or layer norms"):
        convert_norms(network, None, DOMAINS)


@pytest.mark.parametrize("network", [nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Identity()])
def test_network_without_norms_is_refused(network):
    message = rf"{type(network).__name__}: no norm layer to convert, it has no normalization layer"
    with pytest.raises(ConversionError, match=message):
        convert_norms(network, "dsbn", DOMAINS)


def test_second_conversion_is_refused():
    model = converted()
    with pytest.raises(ConversionError, match="converted already"):
        convert_norms(model.backbone, "dsbn", DOMAINS)


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ((), r"domains: got \[\], expected a list of names"),
        (("a", ""), "expected a list of names"),
        ((1, 2), "expected a list of names"),
        (("a", "b\n"), "expected names that can be printed"),
        (("a", "b", "a"), "names a domain twice"),
    ],
)
def test_bad_domains_are_refused(domains, message):
    with pytest.raises(ConversionError, match=message):
        convert_norms(nn.BatchNorm2d(4), "dsbn", domains)


@pytest.mark.parametrize(
    ("norm", "where"), [("dsbn", []), ("dsbn", ["!1"]), ({"early": "cin", "!all": "dsbn"}, "late")]
)
def test_conversion_of_nothing_is_refused(norm, where):
    network = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    with pytest.raises(ConversionError, match="leaves every norm layer as it is"):
        convert_norms(network, norm, DOMAINS, where=where)
