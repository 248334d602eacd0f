"""Images whose domain is estimated, and that are near no known one."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from domainnorm.backbones import convert_norms, create_model, tiled_inference
from domainnorm.encoders import create_encoder, fit_encoder
from domainnorm.errors import ConditionError
from tests.backbones.test_encoder import make
from tests.encoders.pairs import images, pairs

FAR = torch.tensor([False, False, True, True, True])


def batch(model):
    """Two images of the first domain, and three of none."""
    x = torch.cat([images(0, 2), images(9, 3)])
    model.encoder.gaussians.threshold[:2] = 1000.0
    assert torch.equal(model.estimate(x).is_known, ~FAR)
    return x


@pytest.mark.parametrize("unseen", ["estimate", "mixture"])
def test_mean_makes_far_images_those_of_all_domains_in_equal_parts(unseen):
    model = make(unseen=unseen)
    x = batch(model)
    near = model(x[~FAR])
    model.far = "mean"
    found = model(x)
    assert_close(found[~FAR], near)
    assert_close(found[FAR], model(x[FAR], weights=torch.full((3, 3), 1 / 3)))


@pytest.mark.parametrize("norm", ["dsbn", "cbn", {"early": "cin", "late": "dsbn"}], ids=str)
def test_batch_takes_the_moments_of_the_far_images_alone(norm):
    model = make(norm)
    x = batch(model)
    model.far = "batch"
    found = model(x)
    model.far, model.unseen = None, "batch"
    assert_close(found[FAR], model(x[FAR]))
    model.unseen = "mixture"
    assert_close(found[~FAR], model(x[~FAR]))


def test_images_of_a_known_label_are_never_far():
    model = make()
    x, label = batch(model), torch.tensor([2, -1, 1, -1, -1])
    model.far = "mean"
    found = model(x, label)
    assert_close(found[[0, 2]], model(x[[0, 2]], torch.tensor([2, 1])))
    assert_close(found[3:], model(x[3:], weights=torch.full((2, 3), 1 / 3)))


@pytest.mark.parametrize("policy", ["mean", "batch"])
def test_a_batch_without_far_images_is_as_ever(policy):
    model = make()
    x = batch(model)[~FAR]
    wanted = model(x)
    model.far = policy
    assert_close(model(x), wanted)


def test_condition_dropout_has_a_row_for_far_images():
    model = make_dropout()
    x = batch(model)
    model.far = "mean"
    found = model(x)
    model.unseen, model.far = "mean", None
    assert_close(found[FAR], model(x[FAR]))


def make_dropout():
    model = make({"name": "cbn", "dropout": 0.2})
    for norm in model.norms():
        nn.init.uniform_(norm.modulation.unconditional.scale, 0.5, 1.5)
    return model


def test_what_the_call_resolves_to_says_which_images_are_far():
    model = make()
    x = batch(model)
    model.far = "batch"
    given = model.resolve_domain(x)
    assert given["weights"].sum(1).tolist() == pytest.approx([1, 1, 0, 0, 0])
    assert_close(model(x, **given), model(x))


def test_decision_within_the_pass_is_that_before_it():
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=3, norm="dsbn", domains=["a", "b"]).eval()
    encoder = create_encoder("backbone", 2, model.backbone)
    fit_encoder(encoder, pairs([0, 1]), pairs([0, 1]))
    model.attach_encoder(encoder, far="batch")
    x = batch(model)
    assert_close(model(x), model(x, **model.resolve_domain(x)))


def test_tiles_of_a_far_image_are_far():
    model = make_tiled()
    x = images(9, 1, 64)
    model.far = "mean"
    found = tiled_inference(model, x, tile=32, overlap=0)
    wanted = tiled_inference(model, x, domain=torch.full((1, 2), 0.5), tile=32, overlap=0)
    assert_close(found, wanted)


def make_tiled():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model = convert_norms(network, "dsbn", ["a", "b"]).eval()
    encoder = create_encoder("style", 2, model.backbone)
    fit_encoder(encoder, pairs([0, 1]), pairs([0, 1]))
    model.attach_encoder(encoder)
    for owned in model.domain_rows():
        if owned.tensor.is_floating_point():
            nn.init.uniform_(owned.tensor, 0.5, 1.5)
    return model


def test_copies_keep_the_policy():
    model = make()
    model.far = "batch"
    assert copy.deepcopy(model).far == "batch"


def test_zeros_are_no_weights_without_a_policy_nor_in_training():
    model = make()
    x, weights = batch(model), torch.zeros(5, 3)
    with pytest.raises(ConditionError, match="a row sums to 0, expected 1"):
        model(x, weights=weights)
    model.far = "mean"
    assert_close(model(x, weights=weights), model(x, weights=torch.full((5, 3), 1 / 3)))
    with pytest.raises(ConditionError, match="a row sums to 0, expected 1"):
        model.train()(x, weights=weights)


def test_policies_that_cannot_be_carried_out_are_refused():
    model = make({"all": "cin"})
    with pytest.raises(ConditionError, match="unknown policy for far images 'maen': did you mean"):
        model.far = "maen"
    with pytest.raises(ConditionError, match="far: 'batch' replaces running moments"):
        model.far = "batch"
    model = create_model("test_resnet", norm="dsbn", domains=["a", "b"])
    with pytest.raises(ConditionError, match="far: only an encoder finds images"):
        model.far = "mean"
