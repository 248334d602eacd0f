import pytest
import torch
from torch import nn

from domainnorm.errors import DomainNormError
from domainnorm.methods.flow_matching import FlowMatching
from domainnorm.methods.roles import Roles
from domainnorm.tasks.classification import Classification
from domainnorm.tasks.generator import velocity
from domainnorm.tasks.translator import shares_of_white
from tests.methods.bench import ONE, fit, make, make_model, model_of
from tests.reference.generation import flow_loss


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    return fit("flow_matching", model_of("flow_matching", "cgn"), epochs=8, lr=1e-2)


def learned():
    torch.manual_seed(0)
    model = model_of("flow_matching", "cgn")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def batch(target=(3, 1, -1, -1)):
    image = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2)) - 0.5
    return {
        "image": image,
        "target": torch.tensor(target),
        "domain": torch.tensor([0, 0, 1, 1]),
    }


def test_loss_is_that_of_the_formula():
    model, given = learned(), batch()
    torch.manual_seed(5)
    found = make("flow_matching", model, dropout=0.0).losses(given)["flow"]
    torch.manual_seed(5)
    images = 2 * shares_of_white(model, given["image"]) - 1
    noises, times = torch.randn_like(images), torch.rand(4)

    @torch.no_grad()
    def one(image, time, label, domain):
        times, labels = torch.tensor([time]), torch.tensor([label])
        return velocity(model, image[None], times, labels, domain=torch.tensor([domain]))[0]

    expected = flow_loss(one, images, noises, times, given["target"], given["domain"])
    assert found.item() == pytest.approx(expected, rel=1e-4)


def losses_of(method, target):
    torch.manual_seed(5)
    return method.losses(batch(target))["flow"].item()


def test_dropped_classes_are_not_seen():
    method = make("flow_matching", learned(), dropout=0.999999)
    assert losses_of(method, (3, 1, -1, -1)) == losses_of(method, (2, 4, 0, 5))


def test_classes_are_seen():
    method = make("flow_matching", learned(), dropout=0.0)
    assert losses_of(method, (3, 1, -1, -1)) != losses_of(method, (2, 4, -1, -1))


def test_training_lowers_the_loss(fitted):
    losses = fitted.seen.losses
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_rows_of_domains_without_labels_learn(fitted):
    tables = [norm.modulation.scale for norm in fitted.model.norms()]
    assert any(not table[0].equal(table[1]) for table in tables)


def test_sources_alone_will_do():
    roles = Roles(("clean", "colour_cast"))
    done = fit("flow_matching", model_of("flow_matching", "cgn", roles), roles)
    assert done.seen.losses


def test_other_tasks_are_refused():
    with pytest.raises(DomainNormError, match="'FlowMatching' is for images to generate"):
        FlowMatching(make_model(), Classification(list("ab")), ONE)
