import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from domainnorm import create_segmentation_model
from domainnorm.errors import CheckpointError, ConversionError
from domainnorm.norms import ConditionalNorm
from domainnorm.tasks.decoders import DECODERS, PLAIN, size_multiple

DOMAINS = ["day", "dusk"]
MULTISCALE = sorted(set(DECODERS) - set(PLAIN))


def network(decoder, norm=None, name="test_resnet", **options):
    torch.manual_seed(0)
    options = {"width": 32, **options}
    return create_segmentation_model(name, 3, norm, DOMAINS, decoder=decoder, **options).eval()


def norms(model):
    """Module path in the network → its conditional norm."""
    modules = model.backbone.named_modules()
    return {path: module for path, module in modules if isinstance(module, ConditionalNorm)}


@pytest.mark.parametrize("decoder", MULTISCALE)
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_logits_have_the_size_of_the_input(decoder, name):
    model = network(decoder, name=name)
    side = 2 * max(size_multiple(model.backbone), 32)
    with torch.no_grad():
        assert model(torch.randn(2, 3, side, side), torch.tensor([0, 1])).shape == (
            2,
            3,
            side,
            side,
        )


def test_plain_transformer_gets_a_dpt_decoder():
    model = network("dpt", name="test_vit", img_size=64)
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 64), "day").shape == (1, 3, 64, 64)


@pytest.mark.parametrize("decoder", MULTISCALE)
def test_conversion_preserves_encoder_and_decoder(decoder):
    torch.manual_seed(0)
    kind, channels = DECODERS[decoder]
    options = {"encoder_weights": None, "classes": 3, **channels(32)}
    original = kind("tu-test_resnet", **options).eval()
    converted = network(decoder)
    assert {path.split(".")[0] for path in norms(converted)} == {"encoder", "decoder"}
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_close(converted(image, torch.tensor([0, 1])), original(image))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_where_names_a_part_of_the_network(part):
    assert {path.split(".")[0] for path in norms(network("unet", where=part))} == {part}


def test_rules_name_parts_of_the_network():
    found = norms(network("unet", {"encoder": "cbn", "decoder": "dsbn"}))
    kinds = {path.split(".")[0]: type(norm.statistics).__name__ for path, norm in found.items()}
    assert kinds == {"encoder": "BatchStatistics", "decoder": "DomainStatistics"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "unett"}, "task.decoder: unknown decoder 'unett'.*did you mean 'unet'"),
        ({"decoder": "fpn", "width": 48}, "task.width: 48, decoder 'fpn' takes multiples of 32"),
        ({"decoder": "unet", "name": "test_vit"}, "backbone 'test_vit'.*plain vision.*'dpt'"),
        ({"decoder": "unet", "img_sizes": 3}, "backbone.options of 'test_resnet'"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(ConversionError, match=message):
        network(**options)


@pytest.mark.parametrize("name", ["densenet121", "hrnet_w18_small"])
def test_encoder_that_cannot_be_dilated_is_told_so(name):
    with pytest.raises(ConversionError, match="dilates the last stages of its encoder, which this"):
        create_segmentation_model(name, 2, None, ["a"], decoder="deeplabv3plus")


def test_weights_of_another_network_are_refused_as_encoders(tmp_path):
    file = tmp_path / "prefixed.safetensors"
    held = timm.create_model("test_resnet").state_dict()
    save_file({f"backbone.{key}": value for key, value in held.items()}, file)
    with pytest.raises(
        CheckpointError, match=r"prefixed.safetensors: lacks 45 weights of this network"
    ):
        create_segmentation_model("test_resnet", 3, weights=file)


@pytest.mark.parametrize("num_classes", [1000, 0])
def test_weights_with_or_without_a_classifier_load_into_encoders(tmp_path, caplog, num_classes):
    file = tmp_path / "whole.safetensors"
    network = timm.create_model("test_resnet", num_classes=num_classes)
    save_file(network.state_dict(), file)
    model = create_segmentation_model("test_resnet", 3, weights=file)
    stored = dict(model.named_parameters())
    assert_close(stored["backbone.encoder.model.conv1.0.weight"], network.conv1[0].weight)
    assert not caplog.records
