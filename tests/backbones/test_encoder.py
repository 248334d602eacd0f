"""A model that estimates the domains it is not told."""

import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm.backbones import (
    add_domain,
    create_model,
    load_domain,
    load_model,
    remove_domain,
    save_domain,
    save_model,
    tiled_inference,
)
from domainnorm.condition import Condition
from domainnorm.encoders import create_encoder, fit_encoder
from domainnorm.errors import CheckpointError, ConditionError
from domainnorm.tasks import create_segmentation_model
from tests.encoders.pairs import images, pairs
from tests.made_once import made_once

DOMAINS = ["a", "b", "c"]


def with_encoder(model, unseen="mixture"):
    encoder = create_encoder("style", model.num_domains, model.backbone)
    fit_encoder(encoder, pairs([0, 1]), pairs([0, 1]))
    model.attach_encoder(encoder, unseen)
    for owned in model.domain_rows():
        if owned.tensor.is_floating_point():
            torch.nn.init.uniform_(owned.tensor, 0.5, 1.5)
    return model.eval()


@made_once
def make(norm="dsbn", unseen="mixture", domains=DOMAINS):
    return with_encoder(
        create_model("test_resnet", num_classes=3, norm=norm, domains=domains), unseen
    )


def batch():
    return torch.cat([images(0, 2), images(1, 3)]), torch.tensor([0, 0, 1, 1, 1])


@pytest.mark.parametrize("norm", ["dsbn", "cin", "cbn", {"all": "cin"}], ids=str)
def test_images_alone_are_enough(norm):
    model, (x, domain) = make(norm, "estimate"), batch()
    assert_close(model(x), model(x, domain))


@pytest.mark.parametrize("norm", ["dsbn", "cin", "cbn"])
def test_mixture_is_the_call_with_the_weights(norm):
    model, (x, _) = make(norm), batch()
    model.encoder.gaussians.temperature.fill_(1000.0)  # no domain is certain
    weights = model.estimate(x).weights.detach()
    assert weights[:, :2].min() > 0.01
    assert_close(model(x), model(x, weights=weights))


@pytest.mark.parametrize("unseen", ["estimate", "mixture"])
def test_known_labels_are_kept_beside_estimates(unseen):
    model, (x, _) = make(unseen=unseen), batch()
    given = torch.tensor([2, -1, -1, 0, -1])
    found = model(x, given)
    assert_close(found[[0, 3]], model(x[[0, 3]], torch.tensor([2, 0])))
    assert_close(found[[1, 2, 4]], model(x[[1, 2, 4]]))


def test_moments_are_those_of_the_mixture_distribution():
    model = make(domains=["a", "b"])
    norm = next(model.norms())
    weights = torch.tensor([[0.3, 0.7]])
    mean, var = norm.statistics.running_mean, norm.statistics.running_var
    mixed = (weights.T * mean).sum(0)
    spread = (weights.T * (var + (mean - mixed).square())).sum(0)  # law of total variance
    scale, shift = ((weights.T * t).sum(0) for t in (norm.modulation.scale, norm.modulation.shift))
    x = torch.randn(1, len(mixed), 6, 6)
    wanted = torch.nn.functional.batch_norm(
        x, mixed, spread, scale, shift, False, 0.0, norm.statistics.eps
    )
    with norm.slot.holding(Condition(weights=weights)):
        assert_close(
            norm.statistics(x, *norm.modulation(norm.slot.current, x), norm.slot.current), wanted
        )


def test_training_still_needs_labels():
    model, (x, domain) = make().train(), batch()
    with pytest.raises(ConditionError, match="domain: missing"):
        model(x)
    model(x, domain).sum().backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_policy_without_an_encoder_says_what_is_missing():
    model = create_model("test_resnet", norm="dsbn", domains=DOMAINS)
    with pytest.raises(ConditionError, match="unseen: 'mixture' needs a domain encoder"):
        model.unseen = "mixture"
    with pytest.raises(ConditionError, match="encoder: this model has none"):
        model.estimate(torch.rand(1, 3, 32, 32))


def test_encoder_of_other_domains_is_refused():
    model = create_model("test_resnet", norm="dsbn", domains=DOMAINS)
    with pytest.raises(ConditionError, match="made for 2 domains, this model has 3: a, b, c"):
        model.attach_encoder(create_encoder("style", 2))


def test_features_do_not_tell_the_domain():
    model, (x, domain) = make(), batch()
    features = model.forward_features(x, domain)
    with pytest.raises(ConditionError, match="unseen: 'mixture' needs images, got features"):
        model.forward_head(features)
    assert_close(model.forward_head(features, domain), model(x, domain))


def test_added_domain_is_unknown_to_the_encoder_until_it_sees_images():
    model, (x, _) = make(), batch()
    before = model(x)
    add_domain(model, "d")
    assert model.estimate(x).weights.shape == (5, 4)
    assert_close(model(x), before)
    remove_domain(model, "a")
    assert (model.estimate(x).weights[:, 0] == 1).all()  # b is the only one it knows


def test_pack_fits_models_with_and_without_an_encoder(tmp_path):
    model = make()
    plain = copy.deepcopy(model)
    plain.unseen, plain.encoder = "error", None
    save_domain(model, "a", tmp_path / "a.safetensors")
    assert load_domain(plain, tmp_path / "a.safetensors", "again") == "again"


def test_pack_tells_the_same_encoder_what_is_known_of_the_domain(tmp_path):
    model, (x, domain) = make(), batch()
    save_domain(model, "a", tmp_path / "a.safetensors")
    poorer = copy.deepcopy(model)
    remove_domain(poorer, "a")
    load_domain(poorer, tmp_path / "a.safetensors")
    assert poorer.domain_names == ("b", "c", "a")
    assert torch.equal(poorer.estimate(x).domain, torch.tensor([2, 0])[domain])
    assert_close(poorer(x), model(x))


def test_pack_tells_another_encoder_nothing(tmp_path):
    model, (x, _) = make(), batch()
    save_domain(model, "a", tmp_path / "a.safetensors")
    other = with_encoder(copy.deepcopy(model))
    other.encoder.mlp[0].bias.data.add_(1)
    load_domain(other, tmp_path / "a.safetensors", "d")
    load_domain(other, tmp_path / "a.safetensors", "b", replace=True)
    assert other.encoder.gaussians.known.tolist() == [True, False, False, False]
    assert (other.estimate(x).weights[:, 0] == 1).all()


def test_pack_of_a_domain_that_the_encoder_does_not_know(tmp_path):
    model = make()
    save_domain(model, "c", tmp_path / "c.safetensors")
    load_domain(model, tmp_path / "c.safetensors", "d")
    assert model.encoder.gaussians.known.tolist() == [True, True, False, False]


def test_pack_with_values_of_the_encoder_that_are_none_is_refused(tmp_path):
    model = make()
    model.encoder.gaussians.mean[0] = torch.nan
    save_domain(model, "a", tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder.gaussians.mean has values that are not fi"):
        load_domain(model, tmp_path / "a.safetensors", "d")


def test_weights_file_brings_the_encoder_back_by_name_of_domain(tmp_path):
    model, (x, _) = make(), batch()
    save_model(model, tmp_path / "m.safetensors", "test_resnet", ["x", "y", "z"])
    other = create_model("test_resnet", num_classes=3, norm="dsbn", domains=["b", "new", "a"])
    other.attach_encoder(create_encoder("style", 3, other.backbone))
    load_model(other.eval(), tmp_path / "m.safetensors")
    assert_close(other(x), model(x))
    assert (other.estimate(x).weights[:, 1] == 0).all()


def test_weights_file_without_an_encoder_leaves_one_that_is_not_fitted(tmp_path):
    model = create_model("test_resnet", num_classes=3, norm="dsbn", domains=DOMAINS)
    save_model(model, tmp_path / "m.safetensors", "test_resnet", ["x", "y", "z"])
    model.attach_encoder(create_encoder("style", 3, model.backbone))
    load_model(model.eval(), tmp_path / "m.safetensors")
    with pytest.raises(ConditionError, match="knows no domain yet"):
        model(batch()[0])


@pytest.mark.parametrize("unseen", ["estimate", "mixture"])
def test_tiles_get_the_condition_of_their_whole_image(unseen):
    network = create_segmentation_model("test_resnet", 2, "dsbn", DOMAINS, width=16)
    model, (x, domain) = with_encoder(network, unseen), batch()
    tiles = {"tile": 32, "overlap": 8, "progress": False}
    wanted = tiled_inference(model, x, domain=domain, **tiles)
    assert_close(tiled_inference(model, x, **tiles), wanted, rtol=1e-4, atol=1e-4)


def test_labels_of_all_images_ask_no_encoder_where_looking_at_them_is_put_off(monkeypatch):
    monkeypatch.setattr("domainnorm.condition._has_unseen", lambda domain: True)  # as on a GPU
    model = create_model("resnet10t", num_classes=3, norm="dsbn", domains=DOMAINS).eval()
    model.attach_encoder(create_encoder("style", len(DOMAINS), model.backbone))  # not fitted
    x, domain = batch()
    assert model(x, domain).shape == (len(x), 3)
    with pytest.raises(ConditionError, match="knows no domain yet"):
        model(x, torch.full_like(domain, -1))
