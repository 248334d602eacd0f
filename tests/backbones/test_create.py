"""Networks by name, with weights from files."""

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from domainnorm.backbones import create_model, data_config
from domainnorm.backbones.conversion.example import example_image
from domainnorm.backbones.create import find_weights
from domainnorm.errors import CheckpointError, ConversionError, UnknownNameError
from tests.backbones.networks import randomize

NAME = "test_resnet"
IMAGE = torch.rand(2, 3, 64, 64)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A timm network whose weights lie in the folder of offline weights."""
    network = randomize(timm.create_model(NAME)).eval()
    file = tmp_path / f"{NAME}.safetensors"
    save_file(network.state_dict(), file)
    monkeypatch.delenv("DOMAINNORM_WEIGHTS", raising=False)
    monkeypatch.delenv("DOMAINNORM_DATA", raising=False)
    return network, file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt50", "unknown timm architecture 'resnt50': did you mean 'resnet50'"),
        ("efficientnt_b0", "did you mean 'efficientnet_b0'"),
        ("", "unknown timm architecture ''"),
        ("qqqqqqqq", "unknown timm architecture 'qqqqqqqq': known: resnet18"),
        ("resnet10t.c3_in2k", "unknown pretrained tag of resnet10t 'c3_in2k': did you mean 'c3_in"),
    ],
)
def test_unknown_architecture_is_answered_with_the_nearest(name, message):
    with pytest.raises(UnknownNameError, match=message):
        create_model(name)


def test_options_reach_timm():
    model = create_model(NAME, 7, "cin", ["a"], in_chans=1, drop_rate=0.3)
    assert model(IMAGE[:, :1]).shape == (2, 7)
    assert model.backbone.drop_rate == 0.3


def test_unknown_option_is_refused_with_its_name():
    with pytest.raises(ConversionError, match=r"backbone.options of 'test_resnet'.*drop_rat'"):
        create_model(NAME, drop_rat=0.3)


@pytest.mark.parametrize("num_classes", [1000, 7, 0])
@pytest.mark.parametrize("by", ["file", "folder", "data"])
def test_weights_of_a_timm_network_are_loaded(stored, monkeypatch, by, num_classes):
    network, file = stored
    options = {"weights": file} if by == "file" else {"pretrained": True}
    if by == "folder":
        monkeypatch.setenv("DOMAINNORM_WEIGHTS", str(file.parent))
    if by == "data":
        (file.parent / "weights").mkdir()
        file.rename(file.parent / "weights" / file.name)
        monkeypatch.setenv("DOMAINNORM_DATA", str(file.parent / "data"))
    model = create_model(NAME, num_classes, "dsbn", ["a", "b"], **options).eval()
    with model.condition(IMAGE, ["a", "b"]) as backbone:
        features = backbone.forward_features(IMAGE)
    torch.testing.assert_close(features, network.forward_features(IMAGE))
    if num_classes == 1000:
        torch.testing.assert_close(model(IMAGE, "b"), network(IMAGE))


def test_offline_weights_are_not_loaded_without_being_asked_for(stored, monkeypatch):
    network, file = stored
    monkeypatch.setenv("DOMAINNORM_WEIGHTS", str(file.parent))
    model = create_model(NAME, 1000).eval()
    assert (model(IMAGE) - network(IMAGE)).abs().max() > 1e-3


def test_missing_weights_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"backbone.weights: no file .*nothing.safetensors"):
        create_model(NAME, weights=tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_weights_that_do_not_fit_are_refused_with_their_file(tmp_path, content):
    file = tmp_path / "other.safetensors"
    if content is None:
        save_file({"weight": torch.zeros(3)}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights from .*other.safetensors could not be"):
        create_model(NAME, weights=file)


@pytest.mark.usefixtures("stored")
def test_unreachable_hub_says_how_to_work_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("DOMAINNORM_WEIGHTS", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    message = "weights from timm's hub could not be loaded.*DOMAINNORM_WEIGHTS"
    with pytest.raises(CheckpointError, match=message):
        create_model(NAME, pretrained=True)


@pytest.mark.usefixtures("stored")
def test_no_folder_of_weights_means_no_file():
    assert find_weights(NAME) is None


def test_data_config_is_that_of_the_architecture():
    model = create_model("tf_efficientnet_lite0")
    config = data_config(model)
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert config["input_size"] == (3, 224, 224)
    assert config == data_config(model.backbone)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "tresnet_m"])
@pytest.mark.parametrize("channels", [1, 3])
def test_data_config_knows_networks_of_one_channel(name, channels):
    colours = data_config(create_model(name))
    found = data_config(create_model(name, in_chans=channels))
    assert found["input_size"] == (channels, *colours["input_size"][1:])
    assert len(found["mean"]) == len(found["std"]) == channels
    assert sum(found["mean"]) / channels == pytest.approx(sum(colours["mean"]) / 3)


def test_network_that_refuses_small_images_is_looked_at_in_its_own_size():
    model = create_model("sehalonet33ts", 5, "cin", ["a"])
    assert {layer.new for layer in model.conversion} == {"cin", "dsbn"}


def test_creating_a_network_leaves_random_numbers_as_timm_does():
    torch.manual_seed(3)
    timm.create_model(NAME)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    create_model(NAME)
    assert torch.equal(torch.rand(3), wanted)


REAL = Path(os.environ.get("DOMAINNORM_WEIGHTS", ".")) / "tf_efficientnet_lite0.safetensors"


@pytest.mark.skipif(not REAL.is_file(), reason="DOMAINNORM_WEIGHTS holds no real weights")
@pytest.mark.parametrize("norm", ["dsbn", "cbn"])
def test_real_weights_give_the_outputs_of_timm(norm):
    overlay = {"file": str(REAL)}
    network = timm.create_model(
        "tf_efficientnet_lite0", pretrained=True, pretrained_cfg_overlay=overlay
    )
    model = create_model("tf_efficientnet_lite0", 1000, norm, ["a", "b"], pretrained=True).eval()
    torch.testing.assert_close(
        model(IMAGE, ["a", "b"]), network.eval()(IMAGE), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_example_has_the_channels_of_the_first_convolution(channels):
    network = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4))
    assert example_image(network).shape == (1, channels, 64, 64)


def test_example_has_the_channels_of_images_where_a_stem_folds_pixels_into_channels():
    network = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 4, 3), nn.BatchNorm2d(4))
    assert example_image(network).shape == (1, 3, 64, 64)


def test_weights_of_another_network_are_refused(tmp_path, caplog):
    """With another number of classes timm loads what fits, here nothing."""
    file = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    with pytest.raises(
        CheckpointError, match=r"other.safetensors: lacks \d\d weights of this network"
    ):
        create_model(NAME, 3, weights=file)
    assert not caplog.records


def test_weights_with_other_names_are_refused(stored, tmp_path):
    """As a Lightning checkpoint has them."""
    network, _ = stored
    file = tmp_path / "prefixed.safetensors"
    save_file({f"backbone.{key}": value for key, value in network.state_dict().items()}, file)
    with pytest.raises(
        CheckpointError, match=r"lacks .*, such as conv1.0.weight; .*state_dict\(\)"
    ):
        create_model(NAME, 3, weights=file)


def test_weights_that_lack_some_layers_are_refused(stored):
    network, file = stored
    held = {key: value for key, value in network.state_dict().items() if "layer4" not in key}
    save_file(held, file)
    with pytest.raises(CheckpointError, match=r"such as layer4"):
        create_model(NAME, 3, weights=file)


def test_options_may_add_layers_that_weights_lack(tmp_path):
    file = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    model = create_model("test_vit", 3, None, ["a"], weights=file, init_values=0.1)
    assert any("ls1" in name for name, _ in model.named_parameters())


def test_what_timm_logs_is_shown_as_before(stored, caplog):
    _, file = stored
    create_model(NAME, 3, weights=file)
    assert not caplog.records


@pytest.mark.parametrize(
    ("option", "value"),
    [("act_layer", "nope"), ("global_pool", "foo"), ("output_stride", 7), ("drop_rate", "abc")],
)
def test_wrong_value_of_an_option_is_refused_with_the_option(option, value):
    with pytest.raises(ConversionError, match=rf"backbone.options: {{'{option}': .*{value}"):
        create_model(NAME, 3, **{option: value})


def test_a_number_of_domains_is_refused():
    with pytest.raises(ConversionError, match="domains: got 2, expected a list of names"):
        create_model(NAME, 3, "dsbn", 2)


def test_weights_without_a_head_are_loaded(tmp_path):
    """As networks that learned without labels store them."""
    network = timm.create_model(NAME, num_classes=0)
    file = tmp_path / "headless.safetensors"
    save_file(network.state_dict(), file)
    model = create_model(NAME, 3, weights=file)
    torch.testing.assert_close(model.backbone.conv1[0].weight, network.conv1[0].weight)
