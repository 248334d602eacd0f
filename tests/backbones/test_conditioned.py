import pytest
import torch

from domainnorm.backbones import create_model
from domainnorm.encoders import Estimate, create_encoder, fit_encoder
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


@pytest.fixture
def estimate():
    weights = torch.eye(3)[[1, 1, 0, 0]]
    return Estimate(torch.zeros(4, 2), weights, torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("id", [0, 2, 1, 0]),
        ("estimate", [1, 1, 0, 0]),
        ("id_or_estimate", [0, 1, 1, 0]),  # the encoder has seen no image of the third domain
    ],
)
def test_condition_says_whose_domain_is_estimated(model, estimate, condition, wanted):
    given = model.conditioned(LABELS, estimate, condition)
    assert {name: labels.tolist() for name, labels in given.items()} == {"domain": wanted}


def test_mixture_is_the_weights(model, estimate):
    given = model.conditioned(LABELS, estimate, "mixture")
    assert given == {"weights": estimate.weights}


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("estimate", [[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]),
        ("mixture", [[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]),
        ("id_or_estimate", [[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]]),
    ],
)
def test_images_near_no_domain_get_no_weights_where_a_policy_says_more(
    model, estimate, condition, wanted
):
    far = estimate._replace(is_known=torch.tensor([True, False, True, False]))
    policy, model.far = model.far, "mean"
    try:
        given = model.conditioned(LABELS, far, condition)
    finally:
        model.far = policy
    assert {name: weights.tolist() for name, weights in given.items()} == {"weights": wanted}
