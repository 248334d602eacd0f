import pytest
import torch
from torch import nn

from domainnorm.encoders import create_encoder
from domainnorm.errors import DomainNormError
from domainnorm.methods.stylize import Stylize
from domainnorm.tasks.classification import Classification
from tests.methods.bench import ONE, apart_in_colours, fit, make, make_model, model_of


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    return fit("stylize", epochs=12, lr=1e-2)


@pytest.mark.slow
def test_images_come_nearer_to_the_colours_of_the_domain_asked_for(fitted):
    before, after = apart_in_colours(fitted.model)
    assert after < 0.7 * before


def test_training_lowers_the_loss(fitted):
    losses = fitted.seen.losses
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def batch(domain):
    return {"image": torch.rand(4, 3, 32, 32) - 0.5, "domain": torch.tensor(domain)}


def test_untrained_network_loses_style_alone():
    losses = make("stylize", model_of("stylize")).losses(batch([0, 1, 0, 1]))
    assert losses["content"].item() == pytest.approx(0, abs=1e-6)
    assert losses["variation"].item() == 0
    assert losses["style"].item() > 0


def test_batch_of_one_domain_is_asked_to_stay():
    losses = make("stylize", model_of("stylize")).losses(batch([1, 1, 1, 1]))
    assert "style" not in losses
    assert losses["identity"].item() == 0


def test_weights_multiply_losses():
    torch.manual_seed(0)
    one = make("stylize", model_of("stylize")).losses(batch([0, 1, 0, 1]))
    torch.manual_seed(0)
    other = make("stylize", model_of("stylize"), style_weight=20.0).losses(batch([0, 1, 0, 1]))
    assert other["style"].item() == pytest.approx(2 * one["style"].item(), rel=1e-5)


def test_other_tasks_are_refused():
    with pytest.raises(DomainNormError, match="'Stylize' is for images to translate"):
        Stylize(make_model(), Classification(list("ab")), ONE)


def by_image(name):
    norm = {"statistics": "instance", "modulation": "hyper"}
    model = model_of(name, norm=norm)
    model.attach_encoder(create_encoder("style", 2, model.backbone), end_to_end=True)
    return make(name, model)


@pytest.mark.parametrize("name", ["stylize", "translate"])
def test_images_are_asked_for_the_style_of_one_of_the_domain(name):
    method, given = by_image(name), batch([0, 1, 0, 1])
    asked = method.asked(given)
    assert given["domain"][asked.image].equal(asked.domain)
    own = asked.domain == given["domain"]
    assert asked.image[own].equal(torch.arange(4)[own])
    assert asked.embedding.equal(asked.own[asked.image])


@pytest.mark.parametrize("name", ["stylize", "translate"])
def test_encoder_learns_with_the_network(name):
    torch.manual_seed(0)
    method = by_image(name)
    nn.init.normal_(method.model.backbone.last.weight)
    for norm in method.model.norms():
        nn.init.normal_(norm.modulation.last.weight)
    sum(method.losses(batch([0, 1, 0, 1])).values()).backward()
    for layer in (method.model.encoder.mlp[0], method.model.encoder.mlp[2]):
        assert bool((layer.weight.grad != 0).any())
