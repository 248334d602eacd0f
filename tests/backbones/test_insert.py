"""Perturbations inserted into networks."""

import copy
import pickle

import pytest
import torch
from torch import nn

from domainnorm.backbones import convert_norms, create_model, insert_after
from domainnorm.errors import ConditionError, ConversionError, DomainNormError, UnknownNameError
from tests.backbones.networks import DOMAINS, converted

IMAGE = torch.rand(4, 3, 64, 64)
LABELS = torch.tensor([2, 0, 1, 0])


def model(name="resnet10t"):
    return converted(name)


def seeded(network, **options):
    torch.manual_seed(5)
    return network(IMAGE, LABELS, **options)


@pytest.mark.parametrize(
    ("name", "where", "wanted"),
    [
        ("resnet10t", "stem", ["act1"]),
        ("resnet10t", ["stage1", "stage4"], ["layer1.0", "layer4.0"]),
        ("resnet10t", "layer2", ["layer2.0"]),
        ("resnet10t", "layer[13]", ["layer1.0", "layer3.0"]),
        ("resnet10t", ["stage1", "layer1"], ["layer1.0"]),
        ("tf_efficientnet_lite0", ["stem", "stage1"], ["blocks.0.0", "blocks.1.1"]),
        ("tf_efficientnet_lite0", "blocks.2.*.bn1", [f"blocks.2.{i}.bn1" for i in range(2)]),
    ],
)
def test_places_are_stages_or_globs(name, where, wanted):
    found = model(name)
    assert insert_after(found, "mixstyle", where) == wanted
    assert [module.path for module in found.perturbations] == wanted


@pytest.mark.parametrize(
    ("perturbation", "wanted"),
    [
        ("mixstyle", ["layer1.0", "layer2.0"]),
        ("efdmix", ["layer1.0", "layer2.0"]),
        ("dsu", ["act1", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]),
        ("padain", ["act1", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]),
    ],
)
def test_default_place_is_that_of_the_paper(perturbation, wanted):
    assert insert_after(model(), perturbation) == wanted


def test_training_outputs_change_and_evaluation_outputs_do_not():
    found = model()
    trained, evaluated = seeded(copy.deepcopy(found).train()), seeded(found.eval())
    insert_after(found, "mixstyle", p=1.0)
    assert torch.equal(seeded(found), evaluated)
    assert (seeded(found.train()) - trained).abs().max() > 1e-3


def test_state_keys_stay_as_they_were():
    found = model()
    before = list(found.state_dict())
    insert_after(found, "mixstyle")
    assert list(found.state_dict()) == before


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copy_perturbs_alike_under_its_own_condition_and_mode(copied):
    found = model().train()
    insert_after(found, "mixstyle", p=1.0, mode="cross_domain")
    other = copied(found)
    torch.testing.assert_close(seeded(other), seeded(found), rtol=0, atol=0)
    assert {id(module.slot) for module in other.perturbations} == {id(other.slot)}
    found.eval()
    assert all(module.training for module in other.perturbations)


def test_features_are_perturbed_once():
    found = model().train()
    insert_after(found, "padain", "layer1", p=1.0)
    calls = []
    found.perturbations[0].register_forward_hook(lambda *_: calls.append(1))
    seeded(found)
    assert len(calls) == 1


def test_gradient_checkpointing_does_not_skip_the_perturbation():
    found = model().train()
    insert_after(found, "mixstyle", ["layer1", "layer2"], p=1.0, mode="cross_domain")
    gradients = []
    for checkpointing in (False, True):
        other = copy.deepcopy(found)
        other.backbone.set_grad_checkpointing(checkpointing)
        seeded(other).square().sum().backward()
        gradients.append(other.backbone.conv1[0].weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_domains_are_read_from_the_condition_of_the_model():
    found = converted("resnet10t", "cbn").train()
    insert_after(found, "mixstyle", "layer1", p=1.0, mode="cross_domain")
    with pytest.raises(
        ConditionError, match=r"layer1\.0: mode cross_domain needs one domain label"
    ):
        found(IMAGE, weights=torch.full((4, 3), 1 / 3))


def test_further_perturbations_join_the_first():
    found = model()
    insert_after(found, "mixstyle", "layer1")
    insert_after(found, "dsu", "layer3")
    assert [module.path for module in found.perturbations] == ["layer1.0", "layer3.0"]


def test_second_perturbation_of_one_place_is_refused():
    found = model()
    insert_after(found, "mixstyle")
    with pytest.raises(ConversionError, match=r"where: the output of 'layer1\.0' is perturbed"):
        insert_after(found, "dsu", "stage1")


def test_place_that_is_not_there_is_answered_with_those_that_are():
    message = r"where: 'layer9' is no place in this backbone; it has stem \(act1\), stage1 \(layer1"
    with pytest.raises(ConversionError, match=message):
        insert_after(model(), "mixstyle", "layer9")


def test_network_without_stages_asks_for_a_place():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    found = convert_norms(network, "dsbn", DOMAINS)
    with pytest.raises(ConversionError, match="Sequential declares no stages; say with `where`"):
        insert_after(found, "mixstyle")


def test_unknown_perturbation_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'mixstyle'"):
        insert_after(model(), "mixstile")


def test_refused_insertion_leaves_the_model_as_it_was():
    found = model()
    with pytest.raises(ConversionError):
        insert_after(found, "mixstyle", ["layer1", "nowhere"])
    assert not hasattr(found, "perturbations")
    assert not found.backbone.layer1[0]._forward_hooks


def test_module_that_returns_no_tensor_is_refused_with_its_path():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class First(nn.Module):
        def forward(self, pair):
            return pair[0]

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Pair(), First())
    found = convert_norms(network, "dsbn", DOMAINS)
    insert_after(found, "mixstyle", "2")
    with pytest.raises(DomainNormError, match="2: returns tuple, which cannot be perturbed"):
        found(IMAGE, LABELS)


def test_model_without_insertion_has_no_perturbations():
    assert not hasattr(create_model("test_resnet", 4, "dsbn", DOMAINS), "perturbations")


def test_tokens_ask_for_the_axis_of_the_channels():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(2), nn.Flatten(1))
    found = convert_norms(network, "dsbn", DOMAINS)
    insert_after(found, "mixstyle", "2")
    with pytest.raises(
        DomainNormError, match=r"2: returns \(4, 4, 3844\), tokens or a sequence; say"
    ):
        found(IMAGE, LABELS)


@pytest.mark.parametrize("channel_axis", [1, -1])
def test_given_axis_of_the_channels_serves_tokens(channel_axis):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(2), nn.Flatten(1))
    found = convert_norms(network, "dsbn", DOMAINS)
    insert_after(found, "padain", "2", p=1.0, channel_axis=channel_axis)
    assert found.perturbations[0].channel_axis == channel_axis
    assert found(IMAGE, LABELS).isfinite().all()


def test_maps_with_channels_last_are_known_from_timm():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network.output_fmt = "NHWC"
    found = convert_norms(network, "dsbn", DOMAINS)
    insert_after(found, "mixstyle", "0")
    assert found.perturbations[0].channel_axis == -1
