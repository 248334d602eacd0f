import pytest
import torch

from domainnorm.backbones import create_model
from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from tests.norms.modulations.conditions import SHAPES, C, N, apply, double, make

X = SHAPES[2]


def style(images, path="layer", channels=C):
    return Condition(style={path: (double(images, channels), double(images, channels) + 0.5)})


def test_output_has_the_mean_and_deviation_of_the_style():
    norm, condition = make("style", eps=1e-12), style(N)
    output = apply(norm, double(*X), condition)
    mean, var = condition.style["layer"]
    torch.testing.assert_close(output.mean((2, 3)), mean)
    torch.testing.assert_close(output.var((2, 3), unbiased=False), var)


def test_one_style_serves_all_samples():
    norm, condition = make("style"), style(1)
    mean = apply(norm, double(*X), condition).mean((2, 3))
    torch.testing.assert_close(mean, condition.style["layer"][0].expand(N, C))


def test_no_style_leaves_features_and_gradients_as_they_are():
    x, weight = double(*X).requires_grad_(), double(*X)
    output = apply(make("style"), x, Condition())
    torch.testing.assert_close(output, x)
    (gradient,) = torch.autograd.grad((output * weight).sum(), x)
    torch.testing.assert_close(gradient, weight)


def test_layer_that_was_not_recorded_is_named_with_what_to_do():
    message = (
        r"layer: style holds no moments of 'layer' \(it has bn1\); record it with this model: "
        r"style=model\.record_moments\(style_image\)"
    )
    with pytest.raises(ConditionError, match=message):
        apply(make("style"), double(*X), style(1, path="bn1"))


def test_empty_style_is_refused():
    message = r"style holds no moments of 'layer' \(it has no layer at all\)"
    with pytest.raises(ConditionError, match=message):
        apply(make("style"), double(*X), Condition(style={}))


@pytest.mark.parametrize(("images", "channels"), [(3, C), (N, C + 1)])
def test_style_of_another_size_is_refused(images, channels):
    message = rf"layer: style has moments \({images}, {channels}\), expected \(1 or {N}, {C}\)"
    with pytest.raises(ConditionError, match=message):
        apply(make("style"), double(*X), style(images, channels=channels))


def test_recorded_image_restyles_a_model():
    model = create_model("test_resnet", 4, {"early": "adain", "late": "dsbn"}, ["a", "b"]).eval()
    image, other = torch.rand(2, 3, 64, 64), torch.rand(1, 3, 64, 64) * 3
    style = model.record_moments(other, "a")
    first = next(model.norms())
    with torch.no_grad():
        plain = model(image, "a")
        styled = model(image, "a", style=style)
    assert first.path in style
    assert (plain - styled).abs().max() > 1e-3


def test_its_own_recording_leaves_the_outputs_of_an_image_as_they_are():
    model = create_model("test_resnet", 4, {"early": "adain", "late": "dsbn"}, ["a", "b"]).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        own = model(image, "a", style=model.record_moments(image, "a"))
        torch.testing.assert_close(own, model(image, "a"), rtol=1e-4, atol=1e-5)
