"""Moments of a whole set of images, pooled over batches."""

import copy

import pytest
import torch
from torch import nn

from domainnorm.backbones import MomentEstimator, convert_norms
from domainnorm.errors import ConditionError
from tests.backbones.networks import DOMAINS, converted, plain

IMAGE = torch.randn(12, 3, 16, 16) * 3 + 2
LABELS = torch.tensor([0, 2, 0, 0, 2, 2, 0, 2, 0, 0, 0, 2])


def estimate(model, batch_size, image=IMAGE, labels=LABELS):
    estimator = MomentEstimator(model)
    for start in range(0, len(image), batch_size):
        part = slice(start, start + batch_size)
        with estimator.observing():
            model(image[part], labels[part])
    estimator.write()
    return model


def first_layer(norm="dsbn"):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    return convert_norms(network, norm, DOMAINS)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_moments_of_each_domain_are_those_of_its_whole_set(batch_size):
    statistics = estimate(first_layer(), batch_size).backbone[0].statistics
    for row in (0, 2):
        var, mean = torch.var_mean(IMAGE[row == LABELS], (0, 2, 3), unbiased=False)
        torch.testing.assert_close(statistics.running_mean[row], mean)
        torch.testing.assert_close(statistics.running_var[row], var)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_batch_statistics_pool_all_domains(batch_size):
    statistics = estimate(first_layer("cbn"), batch_size).backbone[0].statistics
    var, mean = torch.var_mean(IMAGE, (0, 2, 3), unbiased=False)
    torch.testing.assert_close(statistics.running_mean[0], mean)
    torch.testing.assert_close(statistics.running_var[0], var)


def test_samples_that_do_not_count_still_normalize_the_layers_on_the_way():
    model, counted = first_layer(), torch.arange(12) < 8
    estimator = MomentEstimator(model)
    with estimator.observing(counted):
        model(IMAGE, LABELS)
    estimator.write()
    statistics = model.backbone[0].statistics
    var, mean = torch.var_mean(IMAGE[:8][LABELS[:8] == 0], (0, 2, 3), unbiased=False)
    torch.testing.assert_close(statistics.running_mean[0], mean)
    torch.testing.assert_close(statistics.running_var[0], var)
    deep = copy.deepcopy(model.backbone[2].statistics.running_mean)
    alone = first_layer()
    alone.load_state_dict(model.state_dict())
    with MomentEstimator(alone).observing():
        seen = []
        alone.backbone[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        alone(IMAGE, LABELS)
    torch.testing.assert_close(deep[0], seen[0][:8][LABELS[:8] == 0].mean((0, 2, 3)))


@pytest.mark.parametrize("policy", ["mean", "batch"])
def test_policy_for_unseen_domains_leaves_known_ones_alone(monkeypatch, policy):
    # What it answers on a GPU, where no label is read.
    monkeypatch.setattr("domainnorm.condition._has_unseen", lambda domain: True)
    model, told = first_layer(), first_layer()
    model.unseen = policy
    for one in (model, told):
        estimate(one, 12)
    found, wanted = (one.backbone[0].statistics.running_mean for one in (model, told))
    assert torch.equal(found, wanted)


def test_absent_domain_is_untouched():
    model = first_layer()
    before = copy.deepcopy(model.state_dict())
    after = estimate(model, 4).state_dict()
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        name = f"backbone.0.statistics.{key}"
        assert torch.equal(after[name][1], before[name][1])
    assert not torch.equal(after["backbone.0.statistics.running_mean"][0], torch.zeros(3))


def test_parameters_and_modes_are_restored():
    model = converted("test_resnet")
    model.backbone.bn1.eval()
    modes = [module.training for module in model.modules()]
    before = [parameter.clone() for parameter in model.parameters()]
    estimate(model, 6)
    assert [module.training for module in model.modules()] == modes
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_modes_are_restored_after_an_error():
    model = first_layer().train()
    with pytest.raises(ConditionError), MomentEstimator(model).observing():
        model(torch.rand(2, 5, 8, 8), "a")
    assert all(module.training for module in model.modules())
    assert not model.backbone[0].statistics._forward_pre_hooks


def test_drop_layers_are_off_while_observing():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3))
    model = convert_norms(network, "dsbn", DOMAINS).train()
    statistics = estimate(model, 12).backbone[1].statistics
    wanted = IMAGE[LABELS == 0].mean((0, 2, 3))
    torch.testing.assert_close(statistics.running_mean[0], wanted)


def test_soft_weights_serve_batch_statistics():
    model = first_layer("cbn")
    estimator = MomentEstimator(model)
    with estimator.observing():
        model(IMAGE, weights=torch.full((12, 3), 1 / 3))
    estimator.write()
    wanted = IMAGE.mean((0, 2, 3))
    torch.testing.assert_close(model.backbone[0].statistics.running_mean[0], wanted)


def test_folded_rows_count_for_the_domain_of_their_image():
    network = plain("levit_128s", torch.float32)
    image = torch.rand(4, 3, 224, 224)
    mixed = convert_norms(network, "dsbn", ("a", "b"), example=image[:1])
    alone = copy.deepcopy(mixed)
    labels = torch.tensor([0, 1, 1, 0])
    estimate(mixed, 4, image, labels)
    estimate(alone, 2, image[labels == 1], labels[labels == 1])
    path = mixed.conversion[-1].path
    for key in ("running_mean", "running_var"):
        found, wanted = (
            model.backbone.get_submodule(path).statistics.get_buffer(key)[1]
            for model in (mixed, alone)
        )
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
