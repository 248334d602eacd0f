"""Which norm a layer gets in networks of one family, and in mixed ones."""

import pytest
import torch
from timm.layers import LayerNorm2d
from torch import nn

from domainnorm.backbones import convert_norms, create_model
from domainnorm.errors import ConversionError
from tests.backbones.networks import DOMAINS


def norms_of(norm, *layers, where="all"):
    model = convert_norms(nn.Sequential(*layers), norm, DOMAINS, where=where)
    return [layer.new for layer in model.conversion]


def mixed():
    return nn.BatchNorm2d(4), LayerNorm2d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4)


def test_none_gives_each_layer_its_kin():
    found = norms_of(None, *mixed(), nn.InstanceNorm2d(4))
    assert found == ["dsbn", "cln", "cln", "cgn", "crms", "cin"]


@pytest.mark.parametrize(
    ("norm", "place"), [("dsbn", 0), ("cbn", 0), ("bin", 0), ("ln", 1), ("gn", 3), ("rms", 4)]
)
def test_name_goes_to_layers_of_its_family_and_others_get_their_kin(norm, place):
    model = convert_norms(nn.Sequential(*mixed()), norm, DOMAINS)
    assert model.conversion[place].new == norm
    assert model.conversion[place].note == ""
    kin = ["dsbn", "cln", "cln", "cgn", "crms"]
    others = [layer for layer in model.conversion if layer.new != norm]
    assert [layer.new for layer in others] == [kin[int(layer.path)] for layer in others]
    note = f"{norm} is for other layers, this one keeps its function"
    assert {layer.note for layer in others} == {note}
    assert all(layer.exact for layer in others)


@pytest.mark.parametrize(
    "norm",
    [
        {"name": "dsbn", "momentum": 0.5},
        {"statistics": "domain", "modulation": "table", "momentum": 0.5},
        {"name": "dsbn", "momentum": 0.5, "where": "all"},
    ],
)
def test_name_with_options_goes_to_its_family_too(norm):
    model = convert_norms(nn.Sequential(nn.BatchNorm2d(4), nn.LayerNorm(4)), norm, DOMAINS)
    assert model.backbone[0].statistics.momentum == 0.5
    assert model.conversion[1].new == "cln"


def test_cin_on_a_mixed_network_is_early_on_batch_norms_and_kin_elsewhere():
    layers = [nn.BatchNorm2d(4), LayerNorm2d(4), nn.BatchNorm2d(4), LayerNorm2d(4)]
    assert norms_of("cin", *layers) == ["cin", "cln", "dsbn", "cln"]


def test_cin_without_batch_norms_is_early_where_channels_are_first():
    layers = [LayerNorm2d(4), nn.GroupNorm(2, 4), LayerNorm2d(4), nn.LayerNorm(4)]
    assert norms_of("cin", *layers) == ["cin", "cin", "cln", "cln"]


def test_cin_keeps_instance_norms_everywhere():
    assert norms_of("cin", *(nn.InstanceNorm2d(4) for _ in range(4))) == ["cin"] * 4


@pytest.mark.parametrize(("norm", "where"), [("dsbn", "all"), ("cin", "early"), ("adain", "all")])
def test_name_that_a_layer_cannot_have_is_refused_with_its_kin(norm, where):
    message = rf"^0: norm '{norm}': .* no form for tokens; .*; 'cln' \(or norm=None\) keeps"
    with pytest.raises(ConversionError, match=message):
        norms_of(norm, nn.LayerNorm(4), nn.LayerNorm(4), where=where)


def test_only_layers_inside_where_count_for_the_family():
    with pytest.raises(ConversionError, match=r"^1: norm 'dsbn': "):
        norms_of("dsbn", nn.BatchNorm2d(4), nn.LayerNorm(4), where="1")


def test_rules_are_followed_whatever_the_family():
    assert norms_of({"all": "cin"}, nn.BatchNorm2d(4), LayerNorm2d(4)) == ["cin", "cin"]


def test_rules_that_a_layer_cannot_follow_are_refused_with_its_path():
    with pytest.raises(ConversionError, match=r"^1: norm 'cin': "):
        norms_of({"all": "cin"}, nn.BatchNorm2d(4), nn.LayerNorm(4))


def test_a_rule_of_none_is_the_kin():
    layers = nn.BatchNorm2d(4), LayerNorm2d(4), nn.LayerNorm(4)
    assert norms_of({"all": None, "1": "cin"}, *layers) == ["dsbn", "cin", "cln"]


def test_norms_that_do_not_keep_the_function_say_so():
    rule = {"all": {"name": "cgn", "num_groups": 2}}
    model = convert_norms(nn.Sequential(LayerNorm2d(4), nn.BatchNorm2d(4)), rule, DOMAINS)
    assert [layer.exact for layer in model.conversion] == [False, False]


@pytest.mark.parametrize(
    ("layer", "rule", "exact"),
    [
        (nn.LayerNorm(4), {"name": "cln", "eps": 1e-5}, True),
        (nn.LayerNorm(4), {"name": "cln", "eps": 1e-3}, False),
        (nn.GroupNorm(2, 4), {"name": "cgn", "num_groups": 4}, False),
        (nn.BatchNorm2d(4), {"name": "dsbn", "eps": 1e-3}, False),
        (nn.BatchNorm2d(4), {"name": "dsbn", "momentum": 0.5}, True),
        (nn.GroupNorm(2, 4), {"statistics": "group", "modulation": "lowrank"}, True),
    ],
)
def test_exact_means_that_options_keep_the_formula(layer, rule, exact):
    (line,) = convert_norms(nn.Sequential(layer), {"all": rule}, DOMAINS).conversion
    assert line.exact is exact


def test_mobilevit_gets_a_norm_for_each_of_its_families():
    model = create_model("mobilevit_xxs", 5, "cin", DOMAINS)
    pairs = {(layer.old, layer.new) for layer in model.conversion}
    assert pairs == {("BatchNormAct2d", "cin"), ("BatchNormAct2d", "dsbn"), ("LayerNorm", "cln")}
    assert model(torch.rand(2, 3, 64, 64), ["a", "b"]).shape == (2, 5)


@pytest.mark.parametrize("name", ["in", "cin", "tin", "ibn_a", "bin", "sn", "adain"])
def test_instance_moments_never_reach_a_map_of_one_element(name):
    model = create_model("resnest14d", 3, {"all": name}, DOMAINS)
    replaced = {layer.path for layer in model.conversion if "one element" in layer.note}
    assert "layer1.0.conv2.bn1" in replaced
    assert model(torch.randn(2, 3, 64, 64), torch.tensor([0, 1])).isfinite().all()


def test_map_of_one_element_gets_the_statistics_of_its_kin():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), LayerNorm2d(3))
    model = convert_norms(network, {"all": "cin"}, DOMAINS, example=torch.rand(1, 3, 4, 4))
    (line,) = model.conversion
    assert (line.new, line.exact) == ("layer*table", True)
    assert line.note == "asked for cin, but its map has one element"


def test_impossible_norm_is_refused_with_the_path_and_the_kin():
    message = r"^conv1\.1: num_groups: 32 groups of 24 channels .*; 'dsbn' \(or norm=None\) keeps"
    with pytest.raises(ConversionError, match=message):
        create_model("resnet10t", 3, "cgn", DOMAINS)
