"""The encoder that decides within the model's own forward pass."""

import copy

import pytest
import timm
import torch
from torch.testing import assert_close

from domainnorm.backbones import create_model
from domainnorm.encoders import create_encoder, fit_encoder
from domainnorm.errors import ConditionError
from tests.encoders.pairs import images, pairs
from tests.made_once import made_once
from tests.reference.encoders import channel_moments

NETWORKS = ("test_resnet", "test_vit", "test_convnext")


def make(network="test_resnet", norm="dsbn", unseen="mixture", **options):
    torch.manual_seed(0)
    return made(network, norm, unseen, **options)


@made_once
def made(network, norm, unseen, **options):
    norm = "cln" if network in ("test_vit", "test_convnext") else norm
    model = create_model(network, num_classes=3, norm=norm, domains=["a", "b", "c"], **options)
    encoder = create_encoder("backbone", 3, model.eval().backbone)
    fit_encoder(encoder, Sized(pairs([0, 1])), Sized(pairs([0, 1])))
    model.attach_encoder(encoder, unseen)
    for owned in model.domain_rows():
        if owned.tensor.is_floating_point():
            torch.nn.init.uniform_(owned.tensor, 0.5, 1.5)
    return model.eval()


class Sized(list):
    """Images of the size that vision transformers take."""

    def __init__(self, batches):
        super().__init__(
            (torch.nn.functional.interpolate(image, (160, 160)), label) for image, label in batches
        )


def batch():
    x = torch.cat([images(0, 2), images(1, 3)])
    return torch.nn.functional.interpolate(x, (160, 160)), torch.tensor([0, 0, 1, 1, 1])


def count_stem(model):
    """How often the first convolution runs, in a list of one number."""
    count = [0]
    stem = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d))

    def add(*_):
        count[0] += 1

    stem.register_forward_hook(add)
    return count


@pytest.mark.parametrize("unseen", ["estimate", "mixture"])
@pytest.mark.parametrize("network", NETWORKS)
def test_pass_goes_on_under_the_estimate_of_its_own_features(network, unseen):
    model, (x, domain) = make(network, unseen=unseen), batch()
    estimate = model.estimate(x)
    assert torch.equal(estimate.domain, domain)
    given = {"domain": domain} if unseen == "estimate" else {"weights": estimate.weights}
    assert_close(model(x), model(x, **given))


def test_nothing_is_computed_twice():
    model, (x, _) = make(), batch()
    count = count_stem(model)
    model(x)
    assert count == [1]


def test_features_are_moments_of_what_the_first_norm_sees():
    model, (x, _) = make(), batch()
    seen = []
    first = next(model.norms())
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = model.encoder.features(x)
    wanted = [channel_moments(maps) for maps in seen[0].detach().double().numpy()]
    assert_close(found.double(), torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_known_domains_keep_their_labels():
    model, (x, domain) = make(unseen="estimate"), batch()
    mixed = torch.where(torch.arange(5) % 2 == 0, 2, -1)
    assert_close(model(x, mixed), model(x, torch.where(mixed < 0, domain, mixed)))


def test_late_norms_are_reached_through_the_others():
    model, (x, _) = (
        make(norm={"statistics": "domain", "modulation": "table", "where": "late"}),
        batch(),
    )
    weights = model.estimate(x).weights
    assert_close(model(x), model(x, weights=weights))


@pytest.mark.parametrize("network", ["test_resnet", "test_vit"])  # the vit's is in a checkpoint
def test_recompute_of_gradient_checkpointing_sees_the_estimate(network):
    model, (x, _) = make(network), batch()
    plain = copy.deepcopy(model)
    model.backbone.set_grad_checkpointing()
    gradients = []
    for one in (plain, model):
        one.zero_grad()
        one(x).square().sum().backward()
        gradients.append([p.grad for p in one.backbone.parameters() if p.grad is not None])
    for wanted, found in zip(*gradients, strict=True):
        assert_close(found, wanted)


def test_copies_read_their_own_backbone():
    model, (x, _) = make(), batch()
    twin = copy.deepcopy(model)
    before = twin(x)
    with torch.no_grad():
        next(model.backbone.parameters()).zero_()
    assert torch.equal(twin(x), before)
    assert torch.equal(twin.estimate(x).weights, twin.encoder(x).weights)


def test_weights_of_the_backbone_are_not_in_the_state_twice():
    assert not any("_network" in name for name in make().encoder.state_dict())


def test_network_without_conditional_norms_is_refused():
    with pytest.raises(ConditionError, match="reads the first conditional norm of a network, but"):
        create_encoder("backbone", 2, timm.create_model("test_resnet"))


def test_training_network_is_refused():
    model, (x, _) = make(), batch()
    model.train()
    with pytest.raises(ConditionError, match=r"the network is training; call model.eval"):
        model.estimate(x)


def test_encoder_that_was_not_fitted_says_so():
    model = create_model("test_resnet", num_classes=3, norm="dsbn", domains=["a", "b"]).eval()
    model.attach_encoder(create_encoder("backbone", 2, model.backbone))
    with pytest.raises(ConditionError, match="knows no domain yet; fit_encoder"):
        model(batch()[0])


@pytest.mark.slow
def test_compiled_pass_estimates_too_and_leaves_nothing_behind():
    model, (x, _) = make(), batch()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    some = torch.where(torch.arange(5) % 2 == 0, 2, -1)
    with torch.no_grad():
        assert_close(compiled(x, some), model(x, some))
    assert model.slot.current is None


@pytest.mark.slow
def test_exported_program_estimates_too():
    model, (x, _) = make(), batch()
    model.encoder.gaussians.temperature.fill_(1000.0)  # no domain is certain
    program = torch.export.export(model, (x,), strict=False)
    assert_close(program.module()(x.flip(0)), model(x.flip(0)))


def test_compiled_estimate_alone_is_refused():
    model, (x, _) = make(), batch()
    with pytest.raises(ConditionError, match=r"model\.estimate stops the forward pass half-way"):
        torch.export.export(model.encoder, (x,), strict=False)


def test_autocast_and_channels_last_change_no_more_than_rounding():
    model, (x, _) = make(unseen="estimate"), batch()
    wanted = model(x)
    x = x.contiguous(memory_format=torch.channels_last)
    assert_close(model.to(memory_format=torch.channels_last)(x), wanted, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(model(x.bfloat16()).float(), wanted, rtol=0.1, atol=0.1)


def test_image_in_several_rows_has_the_moments_of_them_all():
    maps, encoder = torch.randn(6, 16, 5, 7), make().encoder
    found = encoder.reached(maps, 2)
    whole = maps.reshape(2, 3, 16, 5, 7).permute(0, 2, 1, 3, 4).reshape(2, 16, 15, 7)
    wanted = [channel_moments(one) for one in whole.double().numpy()]
    assert_close(found.double(), torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_other_norm_than_that_it_was_made_for_is_named_by_its_channels():
    model, (x, _) = make(), batch()
    with (
        pytest.raises(ConditionError, match="expected 16 channels at the first cond"),
        model.condition(x) as backbone,
    ):
        next(backbone.layer2.children())(torch.rand(5, 32, 8, 8))
