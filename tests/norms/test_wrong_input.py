"""What a wrong call of a norm or a model is answered, to the letter."""

from __future__ import annotations

import re

import pytest
import torch

from domainnorm.backbones import convert_norms
from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.norms import create_norm, list_norms
from tests.norms.conditions import DOMAIN, condition_for, make

IMAGE = torch.zeros(2, 3, 8, 8)
LABELS = torch.tensor([0, 1])
CALLS = [
    (
        {},
        "domain: missing; this model serves 2 domains (a, b), pass domain=labels (N,), names or "
        "weights=, or say what becomes of unseen ones, e.g. model.unseen = 'mean'",
    ),
    (
        {"domain": torch.tensor([0])},
        "domain: got shape (1,), expected (2,): one per image",
    ),
    ({"domain": ["a"]}, "domain: got 1 names for 2 images"),
    (
        {"domain": torch.tensor([0, 2])},
        "domain: label 2 is out of range, this model's domains are: 0 a, 1 b",
    ),
    (
        {"domain": torch.tensor([-1, 0])},
        "domain: label -1 is out of range, this model's domains are: 0 a, 1 b",
    ),
    (
        {"domain": torch.tensor([0.0, 1.0])},
        "domain: got torch.float32 labels, expected integers; use .long()",
    ),
    ({"domain": [True, False]}, "domain: got True, expected a name or an integer label"),
    ({"domain": True}, "domain: got True, expected a name or an integer label"),
    (
        {"weights": torch.tensor([[1.5, -0.5], [0.5, 0.5]])},
        "weights: got -0.5, expected shares of at least 0",
    ),
    (
        {"domain": LABELS, "map": torch.zeros(2, 1, 0, 8)},
        "1: map has shape (2, 1, 0, 8), expected (2, 1, any, any); the option map_channels is its "
        "number of channels",
    ),
    (
        {"domain": LABELS, "map": torch.zeros(3, 1, 8, 8)},
        "map: got shape (3, 1, 8, 8), expected 4 axes and the 2 images of the batch in the first",
    ),
    (
        {"domain": LABELS, "map": torch.zeros(2, 8, 8)},
        "map: got shape (2, 8, 8), expected 4 axes and the 2 images of the batch in the first",
    ),
    (
        {"domain": LABELS, "map": torch.zeros(2, 5, 8, 8)},
        "1: map has shape (2, 5, 8, 8), expected (2, 1, any, any); the option map_channels is its "
        "number of channels",
    ),
    ({"domain": LABELS}, "1: spatial modulation needs a map (N, 1, ...); pass map= to the model"),
    (
        {"domain": LABELS, "embedding": torch.zeros(3, 4)},
        "embedding: got shape (3, 4), expected 2 axes and the 2 images of the batch in the first",
    ),
]


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


@pytest.mark.parametrize(("given", "message"), CALLS)
def test_wrong_call_of_a_model_is_answered_exactly(given, message):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    model = convert_norms(network, "spade", ["a", "b"])
    with pytest.raises(ConditionError, match=exactly(message)):
        model(IMAGE, **given)


@pytest.mark.parametrize("name", list_norms())
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(7, 6, 5, 5), (7, 1, 5, 5), (7, 8, 4)])
def test_other_number_of_channels_is_answered_exactly(name, training, shape):
    norm = make(name, 4).train(training)
    message = (
        f"norm: got features {shape}, expected 4 channels in axis 1; make the norm with the "
        "num_features of its input, or with tokens=True where channels are the last axis"
    )
    condition = condition_for(name, torch.zeros(7, 4, 5, 5))
    with norm.slot.holding(condition), pytest.raises(ConditionError, match=exactly(message)):
        norm(torch.randn(shape))


@pytest.mark.parametrize("name", ["ln", "cln", "rms", "crms"])
@pytest.mark.parametrize("shape", [(7, 4, 6), (7, 4, 5, 5)])
def test_tokens_with_channels_elsewhere_are_answered_exactly(name, shape):
    norm = make(name, 4, tokens=True)
    message = (
        f"norm: got features {shape}, expected 4 channels in axis {len(shape) - 1}; make the norm "
        "with the num_features of its input, or without tokens=True where channels are axis 1"
    )
    condition = Condition(domain=DOMAIN)
    with norm.slot.holding(condition), pytest.raises(ConditionError, match=exactly(message)):
        norm(torch.randn(shape))


def test_features_without_channels_are_answered_with_the_path():
    norm = create_norm("dsbn", 4, path="head.norm")
    message = r"^head\.norm: got features \(7,\), expected 4 channels in axis 1; make the norm"
    with (
        norm.slot.holding(Condition(domain=DOMAIN.clamp(max=0))),
        pytest.raises(ConditionError, match=message),
    ):
        norm(torch.randn(7))
