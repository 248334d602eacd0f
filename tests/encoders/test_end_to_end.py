"""An encoder that learns through the loss of the task, with norms that take its embedding."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from domainnorm.backbones import (
    create_model,
    fold_domain,
    load_model,
    save_model,
    tiled_inference,
)
from domainnorm.condition import as_condition
from domainnorm.encoders import create_encoder, fit_domains, start_encoder
from domainnorm.errors import CheckpointError, ConditionError, ConversionError
from domainnorm.slot import find_nearest
from domainnorm.tasks import create_segmentation_model


def batch(count):
    """Images whose class is which half is bright, the other way round where noise is strong."""
    target, noisy = torch.randint(0, 2, (2, count))
    sign = ((2.0 * target - 1) * (1 - 2.0 * noisy))[:, None, None, None]
    image = torch.randn(count, 3, 32, 32) * (0.2 + 0.6 * noisy[:, None, None, None])
    return torch.cat([image[:, :, :16] + 0.5 * sign, image[:, :, 16:] - 0.5 * sign], 2), target


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = make()
    encoder = model.encoder
    start_encoder(encoder, [(batch(128)[0], torch.zeros(128))], torch.Generator())
    model.train()
    first = encoder.mlp[0].weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        image, target = batch(32)
        optimizer.zero_grad()
        F.cross_entropy(model(image), target).backward()
        optimizer.step()
    assert not torch.equal(encoder.mlp[0].weight, first)  # no label of a domain was there
    return model.eval()


def make(encoder="style", norm="film", unseen="error", **options):
    model = create_model("test_resnet", num_classes=2, norm=norm, domains=["a", "b"])
    made = create_encoder(encoder, 2, model.backbone, **options)
    model.attach_encoder(made, unseen, end_to_end=True)
    return model


@torch.no_grad()
def accuracy(model, image, target, **given):
    return float((model(image, **given).argmax(1) == target).float().mean())


@pytest.mark.slow
def test_norms_follow_what_the_encoder_sees(trained):
    image, target = batch(200)
    assert accuracy(trained, image, target) > 0.95
    assert accuracy(trained, image, target, domain="a") > 0.95  # beside the embedding
    plain, noisy = (trained.embed(drawn(1, style)[0]).expand(200, -1) for style in (0, 1))
    for one in (plain, noisy):  # wrong for most images of the other style
        assert accuracy(trained, image, target, embedding=one) < 0.9


def test_domains_are_found_in_what_was_learned_without_their_labels(trained):
    model = copy.deepcopy(trained)
    weights = {name: value.clone() for name, value in model.encoder.mlp.state_dict().items()}
    given = [drawn(64, noisy) for noisy in (0, 1) for _ in range(2)]
    fit_domains(model.encoder, given, given)
    for name, value in model.encoder.mlp.state_dict().items():
        assert torch.equal(value, weights[name])
    image, domain = drawn(64, 1)
    assert (model.estimate(image).domain == domain).float().mean() > 0.95
    model.unseen = "mixture"
    estimate = model.estimate(image)
    assert_close(model(image), model(image, weights=estimate.weights, embedding=estimate.embedding))


def drawn(count, noisy):
    """Images of one style, and its label."""
    image = torch.randn(count, 3, 32, 32) * (0.2 + 0.6 * noisy)
    return image, torch.full((count,), noisy)


@pytest.mark.parametrize("name", ["style", "cnn"])
def test_every_parameter_of_the_encoder_gets_a_gradient(name):
    model = make(name)
    for norm in model.norms():  # which starts at zero
        torch.nn.init.normal_(norm.modulation.last.weight, std=0.1)
    model(batch(4)[0]).square().sum().backward()
    assert all(weight.grad is not None for weight in model.encoder.parameters())
    assert model.encoder.mlp[0].weight.grad.abs().sum() > 0


def test_features_that_are_learned_start_as_training_sees_them():
    model = make("cnn")
    given = [(batch(16)[0], torch.zeros(16)) for _ in range(4)]
    start_encoder(model.encoder, given, torch.Generator())
    model.train()
    seen = model.encoder.features(given[0][0])
    standard = (seen - model.encoder.location) / model.encoder.spread
    assert 0.5 < standard.std() < 2
    assert model.embed(given[0][0]).abs().max() < 10


@pytest.mark.parametrize("name", ["style", "cnn"])
def test_double_precision_and_empty_batches(name):
    model = make(name).double().eval()
    image = batch(4)[0].double()
    assert model(image).dtype == torch.float64
    assert model(image[:0]).shape == (0, 2)


def test_nearest_domain_is_found_under_the_embedding():
    model = make(norm={"early": "film", "late": "dsbn"}).eval()
    for norm in model.norms():
        if hasattr(norm.modulation, "last"):
            torch.nn.init.normal_(norm.modulation.last.weight, std=0.5)
            torch.nn.init.normal_(norm.modulation.domain_embedding, std=20.0)
        else:
            torch.nn.init.uniform_(norm.statistics.running_mean, -1, 1)
    image = batch(16)[0]
    condition = as_condition(
        None, None, ("a", "b"), image, unseen="nearest", embedding=model.embed(image)
    )
    wanted = find_nearest(model.backbone, model.slot, image, condition)
    assert torch.equal(model.nearest_domains(image), wanted)


def test_weights_of_a_model_without_an_encoder_of_its_own_are_refused(tmp_path):
    plain = create_model("test_resnet", num_classes=2, norm="film", domains=["a", "b"])
    for one, other in ((plain, make()), (make(), plain)):
        save_model(one, tmp_path / "model.safetensors", "test_resnet", ["x", "y"])
        with pytest.raises(CheckpointError, match="an encoder trained end to end"):
            load_model(other, tmp_path / "model.safetensors")


def test_other_norms_need_the_domain_beside_the_embedding():
    model = make(norm={"early": "film", "late": "dsbn"})
    image = batch(4)[0]
    with pytest.raises(ConditionError, match="domain"):
        model(image)
    assert model(image, torch.tensor([0, 1, 1, 0])).shape == (4, 2)


def test_tiles_are_normalized_by_the_embedding_of_their_image():
    model = create_segmentation_model("test_resnet", num_classes=2, norm="film", domains=["a"])
    model.attach_encoder(create_encoder("style", 1, model.backbone), "error", end_to_end=True)
    for norm in model.norms():
        torch.nn.init.normal_(norm.modulation.last.weight, std=0.1)
    model.eval()
    image = torch.cat([torch.randn(1, 3, 64, 64), 3 * torch.randn(1, 3, 64, 64)], 3)
    found = tiled_inference(model, image, tile=64, overlap=0)
    with torch.no_grad():
        left = model(image[..., :64], embedding=model.embed(image))
    assert_close(found[..., :64], left)
    assert (found[..., :64] - model(image[..., :64])).abs().max() > 1e-3


def test_attributes_become_embeddings():
    model, image = make("metadata"), torch.randn(4, 3, 32, 32)
    for norm in model.norms():
        torch.nn.init.normal_(norm.modulation.last.weight, std=0.1)
    known = {"scanner": ["A", "B", None, "A"], "hour": [8, 9.5, 17, None]}
    with pytest.raises(ConditionError, match="knows no domain yet"):
        model(image, attributes=known)
    start_encoder(model.encoder, [(known, torch.zeros(4))], torch.Generator().manual_seed(0))
    model.eval()
    assert_close(model(image, attributes=known), model(image, embedding=model.embed(image, known)))
    assert (model(image, attributes={}) - model(image, attributes=known)).abs().max() > 1e-3
    with pytest.raises(ConditionError, match="attributes: missing; the norms of this"):
        model(image, "a")
    model.train()
    torch.manual_seed(0)
    drawn = torch.stack([model.embed(image, known) for _ in range(20)])
    assert drawn.std(0).max() > 0  # values are lost at random
    drawn.sum().backward()
    assert model.encoder.mlp[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("encoder", "norm", "message"),
    [
        ("backbone", "film", "'backbone' reads the input of the first norm"),
        ("style", "dsbn", "embeddings have size 16, but the norms of this model take none"),
        ("style", {"all": {"name": "film", "embedding_size": 8}}, "have size 16, .* take size 8"),
    ],
)
def test_what_cannot_learn_with_the_network_is_refused(encoder, norm, message):
    with pytest.raises(ConditionError, match=message):
        make(encoder, norm)


def test_features_do_not_tell_the_embedding(trained):
    with pytest.raises(ConditionError, match="which features do not give"):
        trained.forward_head(torch.randn(2, 512, 1, 1))


def test_no_plain_network_of_a_domain_has_its_norms(trained):
    with pytest.raises(ConversionError, match="norms of this model follow the embedding"):
        fold_domain(trained, "a")


def test_embedding_of_a_model_without_such_an_encoder_is_refused():
    model = create_model("test_resnet", num_classes=2, norm="film", domains=["a", "b"])
    with pytest.raises(ConditionError, match="has no encoder that computes it"):
        model.embed(batch(2)[0])
