"""Helpers of timm treat a converted network as the one it was."""

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay

from domainnorm.backbones import create_model

NETWORKS = [
    "resnet18",
    "tf_efficientnet_lite0",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "levit_128s",
]
NORMS = {"vit_tiny_patch16_224": "cln", "convnext_atto": "cln"}
every_network = pytest.mark.parametrize("name", NETWORKS)


def made(name):
    model = create_model(name, 3, NORMS.get(name, "dsbn"), ["a", "b", "c"])
    return model, timm.create_model(name, num_classes=3)


def decayed(groups, named):
    """Names of the parameters of groups with weight decay."""
    names = {id(parameter): name for name, parameter in named.named_parameters()}
    return {
        names[id(parameter)]
        for group in groups
        if group["weight_decay"]
        for parameter in group["params"]
    }


@every_network
def test_weight_decay_is_that_of_the_network_before(name):
    model, plain = made(name)
    optimizers = [create_optimizer_v2(one, "sgd", weight_decay=0.05) for one in (model, plain)]
    found, wanted = (
        decayed(one.param_groups, network)
        for one, network in zip(optimizers, (model, plain), strict=True)
    )
    assert found == {f"backbone.{name}" for name in wanted}
    groups = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    assert decayed(groups, model) == found


@every_network
def test_layers_are_those_of_the_network_before(name):
    model, plain = made(name)
    depth = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    wanted = group_parameters(plain, plain.group_matcher(coarse=False), reverse=True)
    shared = {name for name in wanted if f"backbone.{name}" in depth}
    assert len(shared) > len(wanted) / 3
    assert {name: depth[f"backbone.{name}"] for name in shared} == {n: wanted[n] for n in shared}
    rates = {group["lr_scale"] for group in param_groups_layer_decay(model, layer_decay=0.5)}
    assert rates == {
        group["lr_scale"] for group in param_groups_layer_decay(plain, layer_decay=0.5)
    }


def test_rows_of_absent_domains_do_not_move():
    model, _ = made("resnet18")
    before = {one.key: one.tensor[2].detach().clone() for one in model.domain_rows()}
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.1)
    for _ in range(3):
        model(torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    for one in model.domain_rows():
        assert torch.equal(one.tensor[2], before[one.key]), one.key


@every_network
def test_what_the_network_says_of_itself_is_passed_on(name):
    model, plain = made(name)
    assert model.default_cfg == model.pretrained_cfg
    assert model.head_hidden_size == plain.head_hidden_size


def test_the_classifier_is_reset_with_timm_s_arguments():
    model, plain = made("resnet18")
    model.reset_classifier(0, "")
    plain.reset_classifier(0, "")
    image = torch.rand(2, 3, 64, 64)
    assert model(image, "a").shape == plain(image).shape
