"""timm's methods on a converted network."""

import copy

import pytest
import timm
import torch
from torch import nn

from domainnorm.backbones import convert_norms, create_model
from domainnorm.errors import ConditionError, ConversionError
from domainnorm.norms import ConditionalNorm
from tests.backbones.networks import DOMAINS, converted, copy_row, plain, randomize_rows

NAMES = ["test_resnet", "test_efficientnet", "test_byobnet"]
IMAGE = torch.rand(3, 3, 64, 64)
LABELS = torch.tensor([2, 0, 1])


def pair(name):
    """A converted network, and the plain networks that its domains are."""
    original = plain(name, torch.float32)
    model = randomize_rows(convert_norms(copy.deepcopy(original), "dsbn", DOMAINS)).eval()
    return model, [copy_row(model, copy.deepcopy(original), row).eval() for row in range(3)]


def by_row(networks, call):
    """What each sample's own network gives for it, one after the other."""
    rows = [call(networks[label], n) for n, label in enumerate(LABELS.tolist())]
    return torch.cat(rows)


@pytest.mark.parametrize("name", NAMES)
def test_features_and_head_are_those_of_each_domain(name):
    model, networks = pair(name)
    features = model.forward_features(IMAGE, LABELS)
    wanted = by_row(networks, lambda net, n: net.forward_features(IMAGE[n : n + 1]))
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.forward_head(features, LABELS), model(IMAGE, LABELS))


def test_head_without_classifier_gives_pooled_features():
    model = converted().eval()
    features = model.forward_features(IMAGE, LABELS)
    found = model.forward_head(features, LABELS, pre_logits=True)
    torch.testing.assert_close(found, features.mean((2, 3)))


@pytest.mark.parametrize("name", NAMES)
def test_intermediate_maps_are_those_of_each_domain(name):
    model, networks = pair(name)
    final, maps = model.forward_intermediates(IMAGE, LABELS, indices=[1, 2])
    torch.testing.assert_close(final, model.forward_features(IMAGE, LABELS))
    assert len(maps) == 2
    for place, found in enumerate(maps):
        wanted = by_row(
            networks,
            lambda net, n, place=place: net.forward_intermediates(
                IMAGE[n : n + 1], indices=[1, 2], intermediates_only=True
            )[place],
        )
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_features_only_gives_the_maps_of_timm(name):
    torch.manual_seed(0)
    model = create_model(name, norm="dsbn", domains=DOMAINS, features_only=True).eval()
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True).eval()
    found, wanted = model(IMAGE, LABELS), network(IMAGE)
    assert isinstance(found, list)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert model.feature_info.channels() == [features.shape[1] for features in found]


def test_gradients_of_features_survive_checkpointing():
    model = converted("resnet10t", dtype=torch.float64)
    image, parameters = IMAGE.double(), list(model.backbone.layer2.parameters())

    def gradients():
        loss = model.forward_features(image, LABELS).square().sum()
        model.forward_features(image, "a")  # another condition before backward
        return torch.autograd.grad(loss, parameters)

    wanted = gradients()
    model.set_grad_checkpointing()
    torch.testing.assert_close(gradients(), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_new_classifier_has_the_new_number_of_classes(name):
    model = converted(name).eval()
    features = model.forward_features(IMAGE, LABELS)
    model.reset_classifier(7)
    assert (model.num_classes, model.get_classifier().out_features) == (7, 7)
    assert model(IMAGE, LABELS).shape == (3, 7)
    torch.testing.assert_close(model.forward_features(IMAGE, LABELS), features)


def test_report_forgets_a_norm_that_went_with_the_classifier():
    network = nn.Sequential()
    network.conv, network.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    network.head = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1))
    network.reset_classifier = lambda num_classes: setattr(network, "head", nn.Identity())
    model = convert_norms(network, "dsbn", DOMAINS)
    assert [layer.path for layer in model.conversion] == ["bn", "head.0"]
    model.reset_classifier(0)
    assert [layer.path for layer in model.conversion] == ["bn"]


def test_norm_of_a_new_classifier_stays_conditional_or_is_told():
    torch.manual_seed(0)
    network, image = timm.create_model("levit_128s", num_classes=5), torch.randn(2, 3, 224, 224)
    model = convert_norms(network, "dsbn", DOMAINS, example=image[:1]).eval()
    heads = {path: norm for path, norm in model.backbone.named_modules() if "head" in path}
    norms = {path: norm for path, norm in heads.items() if isinstance(norm, ConditionalNorm)}
    assert norms
    model.reset_classifier(7)
    now = dict(model.backbone.named_modules())
    assert all(now[path] is norm for path, norm in norms.items())
    assert {layer.path for layer in model.conversion} >= set(norms)
    assert model(image, ["a", "b"]).shape == (2, 7)
    model.reset_classifier(0)
    with pytest.warns(UserWarning, match=r"head.*all domains share"):
        model.reset_classifier(7)


@pytest.mark.slow
def test_head_of_features_of_an_unseen_domain_takes_the_nearest_of_the_image():
    model = converted().eval()
    model.unseen = "nearest"
    features, wanted = model.forward_features(IMAGE), model(IMAGE)
    with pytest.raises(ConditionError, match=r"model\.nearest_domains\(image\)"):
        model.forward_head(features)
    found = model.forward_head(features, model.nearest_domains(IMAGE))
    torch.testing.assert_close(found, wanted)


def test_sizes_are_those_of_the_backbone():
    model = converted(num_classes=5)
    network = timm.create_model("test_resnet", num_classes=5)
    assert (model.num_features, model.num_classes) == (network.num_features, 5)
    assert model.feature_info == network.feature_info


def test_timm_finds_the_preprocessing_of_a_converted_network():
    wanted = timm.data.resolve_model_data_config(timm.create_model("tf_efficientnet_lite0"))
    model = create_model("tf_efficientnet_lite0", domains=DOMAINS)
    assert timm.data.resolve_model_data_config(model) == wanted


def test_network_of_another_library_says_what_it_lacks():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model = convert_norms(network, "dsbn", DOMAINS)
    with pytest.raises(ConversionError, match="forward_features: Sequential has no such method"):
        model.forward_features(IMAGE, LABELS)
    assert not hasattr(model, "num_features")
