import pytest
import timm
from timm.optim import param_groups_layer_decay
from torch import nn

from domainnorm import create_segmentation_model
from domainnorm.backbones import convert_norms, create_model, layer_scales
from domainnorm.errors import ConversionError

_RENAMED = {"weight": "modulation.scale", "bias": "modulation.shift"}


def timms(name):
    """Name of each parameter -> the factor that timm's own grouping gives it."""
    network = timm.create_model(name, num_classes=3)
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = param_groups_layer_decay(network, layer_decay=0.5)
    return {names[one]: group["lr_scale"] for group in groups for one in group["params"]}


def renamed(name, known):
    """The name of a parameter after conversion."""
    place, _, last = name.rpartition(".")
    return name if name in known else f"{place}.{_RENAMED[last]}"


@pytest.mark.parametrize("name", ["test_vit", "test_vit3", "test_resnet", "test_convnext"])
def test_factors_of_a_classifier_are_those_of_timm(name):
    model = create_model(name, 3, None, ["a", "b"])
    scales = layer_scales(model, 0.5)
    found = {place: scales[one] for place, one in model.backbone.named_parameters()}
    expected = timms(name)
    assert {renamed(place, found): factor for place, factor in expected.items()} == found
    assert len(set(found.values())) > 4


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("test_vit", "pyramid"),
        ("test_resnet", "unet"),
        ("test_convnext", "upernet"),
        ("test_efficientnet", "fpn"),
    ],
)
def test_factors_of_an_encoder_are_those_of_its_classifier(name, decoder):
    model = create_segmentation_model(name, 3, None, ["a"], decoder=decoder, width=32)
    scales = layer_scales(model, 0.5)
    encoder = model.backbone.encoder.model
    # Lists of feature maps have stages_0 for stages.0.
    found = {
        place.replace("stages_", "stages.").replace("stem_", "stem."): scales[one]
        for place, one in encoder.named_parameters()
    }
    expected = {renamed(place, found): factor for place, factor in timms(name).items()}
    inside = {place: factor for place, factor in expected.items() if place in found}
    assert inside == found
    assert len(scales) == len(found)


def test_network_without_known_layers_is_refused():
    model = convert_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), None, ["a"])
    with pytest.raises(ConversionError, match=r"method.layer_decay: Sequential does not say"):
        layer_scales(model, 0.5)


def test_decay_of_one_leaves_all_rates_alone():
    scales = layer_scales(create_model("test_resnet", 3, None, ["a"]), 1.0)
    assert set(scales.values()) == {1.0}
