import pytest
import timm
import torch

from domainnorm.backbones import convert_norms
from domainnorm.errors import ConversionError
from domainnorm.norms.modulations.shared import NoModulation
from tests.backbones.networks import randomize

NONE = {"statistics": "batch", "modulation": "none"}


def test_layer_stores_nothing():
    modulation = NoModulation(4, 2)
    assert not list(modulation.parameters())
    assert not modulation.state_dict()


def test_identity_can_be_replaced():
    modulation = NoModulation(4, 2)
    modulation.start(torch.ones(4), torch.zeros(4))
    assert (modulation.scale == 1).all()


@pytest.mark.parametrize(("scale", "shift"), [(2.0, 0.0), (1.0, 0.5)])
def test_learned_scale_or_shift_is_not_thrown_away(scale, shift):
    with pytest.raises(ConversionError, match="'none' would lose the scale and shift of the layer"):
        NoModulation(4, 2).start(torch.full((4,), scale), torch.full((4,), shift))


def test_conversion_names_the_layer_whose_scale_would_be_lost():
    network = randomize(timm.create_model("test_resnet"))
    with pytest.raises(ConversionError, match=r"conv1\.1: modulation 'none' would lose the scale"):
        convert_norms(network, NONE, ["a"])


def test_network_without_learned_scales_keeps_its_function():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    image = torch.rand(2, 3, 8, 8)
    wanted = network(image)
    torch.testing.assert_close(convert_norms(network, NONE, ["a"])(image), wanted)
