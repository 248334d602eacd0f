import re

import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.norms import create_norm
from tests.norms.modulations.conditions import SHAPES, C, N, apply, double, make


def test_map_is_resized_to_the_feature():
    norm, x = make("spatial"), double(N, C, 4, 6)
    small = double(N, 1, 2, 3)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    found = apply(norm, x, Condition(map=small))
    torch.testing.assert_close(found, apply(norm, x, Condition(map=large)))


def test_integer_map_equals_the_same_numbers_as_floats():
    norm, x = make("spatial"), double(*SHAPES[2])
    labels = torch.randint(0, 5, (N, 1, 8, 8))
    found = apply(norm, x, Condition(map=labels))
    torch.testing.assert_close(found, apply(norm, x, Condition(map=labels.double())))


def test_pixel_depends_on_its_neighbourhood_of_the_map_alone():
    norm, x = make("spatial"), double(N, C, 9, 9)
    guide = double(N, 1, 9, 9)
    changed = guide.clone()
    changed[:, :, 0, 0] += 1
    difference = apply(norm, x, Condition(map=guide)) - apply(norm, x, Condition(map=changed))
    assert difference[:, :, :3, :3].abs().max() > 0
    assert difference[:, :, 3:].abs().max() == difference[:, :, :, 3:].abs().max() == 0


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            Condition(domain=torch.zeros(N, dtype=torch.long)),
            "layer: spatial modulation needs a map (N, 1, ...); pass map= to the model",
        ),
        (
            Condition(map=torch.rand(N, 3, 4, 5)),
            "layer: map has shape (5, 3, 4, 5), expected (5, 1, any, any); the option map_channels "
            "is its number of channels",
        ),
        (
            Condition(map=torch.rand(N, 1, 4)),
            "layer: map has shape (5, 1, 4), expected (5, 1, any, any)",
        ),
    ],
    ids=["missing", "channels", "axes"],
)
def test_map_that_does_not_fit_is_refused(condition, message):
    with pytest.raises(ConditionError, match=re.escape(message)):
        apply(make("spatial"), double(*SHAPES[2]), condition)


def test_features_of_other_axes_name_the_option():
    message = re.escape("layer: spatial modulation with spatial_axes=2 got features (5, 3, 7)")
    with pytest.raises(ConditionError, match=message):
        apply(make("spatial"), double(*SHAPES[1]), Condition(map=double(N, 1, 7)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_axes": 4}, "spatial_axes: got 4, expected 1, 2 or 3"),
        ({"map_channels": 0}, "map_channels: got 0, expected 1 or more"),
        ({"hidden": 0}, "hidden: got 0, expected 1 or more"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(DomainNormError, match=message):
        create_norm("spade", 4, 2, **options)
