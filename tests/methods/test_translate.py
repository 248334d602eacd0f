import pytest
import torch
from torch.testing import assert_close

from tests.methods.bench import apart_in_colours, fit, images, make, model_of


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    return fit("translate", epochs=12, lr=1e-2)


@pytest.mark.slow
def test_images_come_nearer_to_the_colours_of_the_domain_asked_for(fitted):
    before, after = apart_in_colours(fitted.model)
    assert after < 0.7 * before


@torch.no_grad()
def test_classifier_tells_real_domains(fitted):
    for label, name in enumerate(("clean", "colour_cast")):
        told = fitted.method.classifier(images(name)).mean((0, 2, 3))
        assert told.argmax() == label


def batch(domain):
    torch.manual_seed(1)
    return {"image": torch.rand(4, 3, 32, 32) - 0.5, "domain": torch.tensor(domain)}


def losses_of(domain=(0, 1, 0, 1), **options):
    torch.manual_seed(0)
    method = make("translate", model_of("translate"), **options)
    return method, method.losses(batch(list(domain)))


def test_untrained_network_loses_what_the_classifier_says_alone():
    _, losses = losses_of()
    assert losses["cycle"].item() == pytest.approx(0, abs=1e-6)
    assert losses["variation"].item() == 0
    assert losses["adversarial"].item() != 0
    assert "contrast" not in losses


def test_batch_of_one_domain_is_asked_to_stay():
    _, losses = losses_of((1, 1, 1, 1))
    assert set(losses) == {"classifier", "identity"}
    assert losses["identity"].item() == 0


def test_classifier_and_network_learn_from_a_loss_each():
    for own, name in (("classifier", "classifier"), ("adversarial", "model")):
        method, losses = losses_of()
        losses[own].backward()
        moved = {key.split(".")[0] for key, p in method.named_parameters() if p.grad is not None}
        assert moved == {name}


@pytest.mark.parametrize("name", ["adversarial", "contrast"])
def test_weights_multiply_losses(name):
    one, other = (losses_of(**{f"{name}_weight": weight})[1][name] for weight in (1.0, 2.0))
    assert_close(other, 2 * one)
