"""Which layers a rule reaches, and which norm they get."""

import pytest
import timm
import torch
from timm.layers import LayerNorm2d
from torch import nn

from domainnorm.backbones import convert_norms, create_model
from domainnorm.errors import ConversionError, UnknownNameError
from tests.backbones.networks import DOMAINS, plain


def norms_of(norm, name="resnet10t", where="all"):
    model = create_model(name, 5, norm, DOMAINS, where=where)
    return {layer.path: layer.new for layer in model.conversion}


def prefixes(norms, kind):
    """The first names of the paths of all layers of one kind."""
    return {path.split(".")[0] for path, new in norms.items() if new == kind}


def test_cin_is_instance_early_and_domain_late_on_a_resnet():
    norms = norms_of("cin")
    assert prefixes(norms, "cin") == {"conv1", "bn1", "layer1", "layer2"}
    assert prefixes(norms, "dsbn") == {"layer3", "layer4"}


def test_cin_is_instance_early_and_domain_late_on_an_efficientnet():
    norms = norms_of("cin", "tf_efficientnet_lite0")
    early = {".".join(path.split(".")[:2]) for path, new in norms.items() if new == "cin"}
    late = {".".join(path.split(".")[:2]) for path, new in norms.items() if new == "dsbn"}
    assert early == {"bn1", "blocks.0", "blocks.1", "blocks.2"}
    assert late == {"blocks.3", "blocks.4", "blocks.5", "blocks.6", "bn2"}


def test_ibn_a_is_mixed_early_and_batch_late():
    norms = norms_of("ibn_a")
    assert prefixes(norms, "ibn_a") == {"conv1", "bn1", "layer1", "layer2"}
    assert prefixes(norms, "bn") == {"layer3", "layer4"}


def test_ibn_a_keeps_late_layer_norms():
    network = nn.Sequential(*(LayerNorm2d(4) for _ in range(4)))
    found = [layer.new for layer in convert_norms(network, "ibn_a", DOMAINS).conversion]
    assert found == ["ibn_a", "ibn_a", "cln", "cln"]


@pytest.mark.parametrize("name", ["cin", "ibn_a"])
def test_one_norm_in_all_layers_can_be_forced(name):
    assert set(norms_of({"all": name}).values()) == {name}


def test_early_layers_of_a_network_without_stages_are_its_first_half():
    network = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(5)))
    model = convert_norms(network, "cin", DOMAINS)
    assert [layer.new for layer in model.conversion] == ["cin", "cin", "cin", "dsbn", "dsbn"]


def test_features_only_networks_have_early_layers_too():
    model = create_model("resnet10t", 0, "cin", DOMAINS, features_only=True, out_indices=(1, 3))
    early = {layer.path.split(".")[0] for layer in model.conversion if layer.new == "cin"}
    assert {"layer1", "layer2"} <= early
    assert "layer3" not in early
    maps = model(torch.rand(2, 3, 64, 64), ["a", "b"])
    assert [tuple(features.shape[-2:]) for features in maps] == [(16, 16), (4, 4)]


def test_squeeze_and_excitation_norms_become_domain_statistics_with_a_note():
    model = create_model("resnest14d", 5, {"all": "cin"}, DOMAINS)
    replaced = {layer.path for layer in model.conversion if layer.note}
    assert replaced == {layer.path for layer in model.conversion if "conv2.bn1" in layer.path}
    assert {layer.new for layer in model.conversion if layer.path in replaced} == {"domain*table"}
    note = next(layer.note for layer in model.conversion if layer.note)
    assert note == "asked for cin, but its map has one element"
    output = model(torch.rand(2, 3, 64, 64), ["a", "b"])
    assert output.isfinite().all()


def test_windows_and_tokens_become_domain_statistics_with_a_note():
    model = create_model("efficientvit_m0", 5, {"all": "in"}, DOMAINS)
    notes = {
        layer.new: layer.note
        for layer in model.conversion
        if "0.mixer.m.attn.qkvs" in layer.path and "stages.0" in layer.path
    }
    assert notes == {"domain*shared": "asked for in, but its rows are parts of images"}


def test_last_matching_rule_wins():
    norms = norms_of({"all": "bn", "layer1.*": "cbn", "layer1.0.bn2": "cin"})
    assert norms["bn1"] == "bn"
    assert norms["layer1.0.bn1"] == "cbn"
    assert norms["layer1.0.bn2"] == "cin"


def test_where_limits_the_conversion():
    assert prefixes(norms_of("dsbn", where=["early", "!layer2.*"]), "dsbn") == {
        "conv1",
        "bn1",
        "layer1",
    }


@pytest.mark.parametrize("where", ["stem", ["stem"], ["all", "!layer*"], ["bn1", "conv1.*"]])
def test_ways_to_say_the_stem(where):
    assert prefixes(norms_of("dsbn", where=where), "dsbn") == {"conv1", "bn1"}


def test_rule_can_spell_out_both_halves_with_options_and_where():
    rule = {"statistics": "instance", "modulation": "table", "eps": 1e-3, "where": "stem"}
    model = create_model("resnet10t", 5, rule, DOMAINS)
    assert {layer.new for layer in model.conversion} == {"instance*table"}
    assert {norm.statistics.eps for norm in model.norms()} == {1e-3}


def test_options_in_a_rule_override_those_of_the_replaced_layer():
    model = create_model("test_resnet", 5, {"all": {"name": "dsbn", "momentum": 0.5}}, DOMAINS)
    assert {norm.statistics.momentum for norm in model.norms()} == {0.5}


@pytest.mark.parametrize("where", [["all"], ["all", "!bn1"]])
@pytest.mark.parametrize("name", ["cin", {"name": "cin"}, "ibn_a"])
def test_leaving_layers_out_does_not_change_what_a_name_means(where, name):
    found, wanted = norms_of(name, where=where), norms_of(name)
    assert set(wanted.values()) == ({"ibn_a", "bn"} if name == "ibn_a" else {"cin", "dsbn"})
    assert found == {path: norm for path, norm in wanted.items() if path in found}
    assert wanted.keys() - found.keys() == ({"bn1"} if "!bn1" in where else set())


@pytest.mark.parametrize("where", ["layer9.*", ["all", "!erly"]])
def test_pattern_that_matches_nothing_is_refused_with_examples(where):
    with pytest.raises(
        ConversionError, match=r"matches none of the .* norm layers \(conv1.*\); use"
    ):
        convert_norms(plain("resnet10t"), "dsbn", DOMAINS, where=where)


@pytest.mark.parametrize(
    ("norm", "error", "message"),
    [
        ({}, ConversionError, "norm: no rules"),
        ({"statistics": "instance"}, ConversionError, "'modulation' is missing"),
        ({"all": {"eps": 1e-3}}, ConversionError, "'statistics' is missing"),
        ("dsnb", UnknownNameError, "unknown norm 'dsnb': did you mean 'dsbn'"),
        ({"early": "cim"}, UnknownNameError, "unknown norm 'cim': did you mean 'cin'"),
        ({"statistics": "domian", "modulation": "table"}, UnknownNameError, "'domian': did you"),
    ],
)
def test_bad_norm_is_refused(norm, error, message):
    with pytest.raises(error, match=message):
        convert_norms(plain("test_resnet"), norm, DOMAINS)


class Segmenter(nn.Module):
    """A network with the children that segmentation_models_pytorch has."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Sequential(nn.Conv2d(64, 8, 3), nn.BatchNorm2d(8))

    def forward(self, x):
        return self.decoder(self.encoder(x)[0])


def segmenter():
    return Segmenter(timm.create_model("resnet10t", features_only=True))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_encoder_and_decoder_can_be_told_apart(part):
    model = convert_norms(segmenter(), "dsbn", DOMAINS, where=part)
    assert {layer.path.split(".")[0] for layer in model.conversion} == {part}


def test_rules_can_name_encoder_and_decoder():
    model = convert_norms(segmenter(), {"encoder": "cbn", "decoder": "dsbn"}, DOMAINS)
    pairs = {(layer.path.split(".")[0], layer.new) for layer in model.conversion}
    assert pairs == {("encoder", "cbn"), ("decoder", "dsbn")}


def test_early_layers_of_a_segmentation_network_are_those_of_its_encoder():
    model = convert_norms(segmenter(), "cin", DOMAINS)
    early = {".".join(x.path.split(".")[:2]) for x in model.conversion if x.new == "cin"}
    assert early == {"encoder.conv1", "encoder.bn1", "encoder.layer1", "encoder.layer2"}


@pytest.mark.parametrize(
    ("norm", "where"), [("cin", "encoder"), ({"name": "cin", "where": "encoder"}, "all")]
)
def test_cin_in_an_encoder_is_instance_early_and_domain_late(norm, where):
    model = convert_norms(segmenter(), norm, DOMAINS, where=where)
    everywhere = convert_norms(segmenter(), "cin", DOMAINS).conversion
    of_encoder = [(x.path, x.new) for x in everywhere if x.path.startswith("encoder.")]
    assert [(layer.path, layer.new) for layer in model.conversion] == of_encoder
    assert {new for _, new in of_encoder} == {"cin", "dsbn"}


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_part_that_the_network_does_not_have_is_refused(part):
    message = f"'{part}' matches none of .* encoder or decoder where the network has such a child"
    with pytest.raises(ConversionError, match=message):
        convert_norms(plain("resnet10t"), "dsbn", DOMAINS, where=part)


def test_early_layers_of_a_flat_network_are_those_of_its_stages():
    model = create_model("convnext_atto", 0, None, DOMAINS, where="early", features_only=True)
    assert {layer.path.split(".")[0] for layer in model.conversion} == {
        "stem_1",
        "stages_0",
        "stages_1",
    }
