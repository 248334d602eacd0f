import numpy as np
import pytest
import torch
import torch.nn.functional as F

from domainnorm.encoders import create_encoder, style_features
from domainnorm.encoders.style import squared
from domainnorm.errors import ConditionError
from tests.reference.encoders import style_of


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 128, 128), (1, 192, 192)])
def test_features_equal_the_reference(shape):
    image = torch.randn(2, *shape, dtype=torch.float64).cumsum(-1) * 0.1
    wanted = np.stack([style_of(one.numpy()) for one in image])
    torch.testing.assert_close(style_features(image), torch.from_numpy(wanted))


@pytest.mark.parametrize("shape", [(2, 3, 16, 9), (1, 1, 2, 2), (3, 4, 300, 200)])
def test_every_size_and_number_of_channels_works(shape):
    channels = shape[1]
    found = style_features(torch.rand(shape))
    assert found.shape == (shape[0], 3 * channels + channels * (channels - 1) // 2 + 10)
    assert found.isfinite().all()


def test_constant_image_has_finite_features_and_gradients():
    image = torch.zeros(1, 3, 32, 32, requires_grad=True)
    style_features(image).sum().backward()
    assert image.grad.isfinite().all()


def test_images_do_not_influence_each_other():
    image = torch.rand(4, 3, 40, 40)
    torch.testing.assert_close(style_features(image)[1:2], style_features(image[1:2]))


def test_what_is_mirrored_has_the_same_style():
    image = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(
        style_features(image.flip(-1)), style_features(image), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (74, 127), (100, 65), (300, 64), (16, 40)])
def test_squares_are_those_of_adaptive_pooling(size):
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = F.adaptive_avg_pool2d(image, min(size))
    torch.testing.assert_close(squared(image, min(size)), expected)
    assert squared(image.float(), 16).dtype == torch.float32


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 48, 48),
        torch.rand(2, 3, 1, 48),
        torch.rand(48, 48),
        torch.zeros(2, 3, 48, 48, dtype=torch.uint8),
    ],
)
def test_what_are_no_images_is_named(image):
    with pytest.raises(ConditionError) as raised:
        style_features(image)
    assert str(raised.value) == (
        f"style_features: images {tuple(image.shape)} {image.dtype}, expected floats (N, C, H, W), "
        "H and W at least 2; a single image is image[None], whole numbers are image.float() / 255"
    )


def test_encoder_of_style_names_a_single_image():
    with pytest.raises(ConditionError, match=r"images \(3, 48, 48\) torch.float32, expected"):
        create_encoder("style", 2).features(torch.rand(3, 48, 48))
