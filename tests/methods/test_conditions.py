import pytest
import torch

from domainnorm.backbones import create_model
from domainnorm.encoders import Estimate, create_encoder, fit_encoder
from domainnorm.methods.conditions import DomainsTold, estimating, hide_domains
from tests.encoders.pairs import pairs

LABELS = torch.tensor([0, 2, 1, 0])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("test_resnet", norm="dsbn", domains=["a", "b", "c"])
    encoder = create_encoder("style", 3, model.backbone)
    fit_encoder(encoder, pairs([0, 1]), pairs([0, 1]))
    model.attach_encoder(encoder, "mean")
    return model.eval()


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("id", [0, 2, 1, 0]),
        ("estimate", [-1, -1, -1, -1]),
        ("mixture", [-1, -1, -1, -1]),
        ("id_or_estimate", [0, -1, 1, 0]),  # the encoder has seen no image of the third domain
    ],
)
def test_condition_says_whose_domain_is_hidden(model, condition, wanted):
    assert hide_domains(model, LABELS, condition).tolist() == wanted


@pytest.mark.parametrize(
    ("condition", "policy"),
    [
        ("id", "mean"),
        ("estimate", "estimate"),
        ("id_or_estimate", "estimate"),
        ("mixture", "mixture"),
    ],
)
def test_policy_of_the_model_is_changed_inside_the_block_alone(model, condition, policy):
    seen = []

    def fail():
        with estimating(model, condition):
            seen.append(model.unseen)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (seen, model.unseen) == ([policy], "mean")


def test_shares_are_of_all_images_over_batches():
    told = DomainsTold()
    weights = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    known = torch.tensor([True, False, True])
    estimate = Estimate(torch.zeros(3, 2), weights, torch.zeros(3, 2), known)
    told.update(estimate, torch.tensor([0, 1, 1]))
    told.update(Estimate(*(tensor[:1] for tensor in estimate)), torch.tensor([1]))
    assert told.compute() == {"domain_accuracy": 0.5, "domain_known": 0.75}
