"""What `calibrate` refuses."""

import copy

import pytest
import torch
from torch import nn

from domainnorm.backbones import calibrate, convert_norms
from domainnorm.errors import ConditionError, ConversionError, DataError
from tests.backbones.conversion.test_affine_fit import (
    ALL,
    IMAGE,
    LABELS,
    batches,
    converted,
    small,
)
from tests.backbones.networks import DOMAINS, randomize


def test_model_without_inexact_layers_is_refused():
    model = convert_norms(small(), "dsbn", DOMAINS)
    with pytest.raises(ConversionError, match="every converted layer keeps its function"):
        calibrate(model, batches())


def test_layer_that_was_trained_is_refused_by_path():
    model = converted()
    with torch.no_grad():
        model.backbone[4].modulation.shift[1] += 0.1
    with pytest.raises(
        ConversionError, match=r"4: its scale and shift have changed since the conv"
    ):
        calibrate(model, batches())


def test_second_calibration_is_refused():
    model = converted()
    calibrate(model, batches())
    with pytest.raises(ConversionError, match="calibrate before training, loading weights or an"):
        calibrate(model, batches())


def test_pair_of_a_style_is_refused():
    norm = {"statistics": "instance", "modulation": "style"}
    with pytest.raises(ConversionError, match=r"1: scale and shift .* they follow the style"):
        calibrate(converted(norm=norm), batches())


def test_layer_without_scale_and_shift_is_refused():
    network = nn.Sequential(nn.BatchNorm2d(3, affine=False))
    norm = {"statistics": "instance", "modulation": "none"}
    model = convert_norms(network, {"all": norm}, DOMAINS)
    with pytest.raises(ConversionError, match=r"0: scale and shift .* they are always 1 and 0"):
        calibrate(model, batches(image=IMAGE.float()))


def test_model_is_as_it_was_after_an_error():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    model = convert_norms(randomize(network).double(), ALL, DOMAINS)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConditionError, match="2: instance statistics of a map with one element"):
        calibrate(model, batches())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        ([], DataError, "the loader gave no images; give a few batches"),
        ([IMAGE], DataError, "batch 0 is Tensor, expected a mapping with 'image' and 'domain'"),
        ([{"domain": LABELS}], DataError, "batch 0 is dict, expected"),
        (
            [(IMAGE, LABELS), (IMAGE[..., :16], LABELS)],
            DataError,
            r"batch 1 has images \(3, 32, 16\), those before \(3, 32, 32\)",
        ),
        ([{"image": IMAGE}], ConditionError, "domain: missing; this model serves 3 domains"),
        ([(IMAGE, LABELS - 1)], ConditionError, "label -1 is out of range"),
    ],
    ids=["empty", "tensor", "no image", "sizes", "no domain", "unseen"],
)
def test_wrong_batches_are_refused(loader, error, message):
    model = converted()
    model.unseen = "mean"
    with pytest.raises(error, match=message):
        calibrate(model, loader)
