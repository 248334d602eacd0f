"""The model card of an exported model."""

import pytest

from domainnorm.report import model_card


def card(condition="id", **image):
    known = {"height": 96, "width": 128, "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop": None}
    about = {
        "recipe": "medical/wbc",
        "stage": "stages/a-to-b/seed0/source_only",
        "method": "source_only",
        "supervised": False,
        "task": "classification",
        "dataset": "folder",
        "source": ["a"],
        "target": ["b"],
        "backbone": "resnet18",
        "backbone_options": {},
        "pretrained": False,
        "norm": "dsbn",
        "condition": condition,
        "domain_names": ["a", "b"],
        "class_names": ["x", "y"],
        "preprocessing": known | {"white": 65535, "resize": "both sides."} | image,
        "packages": {"domainnorm": "0.1.0"},
        "format": "onnx",
        "domain": None,
        "file": "model.onnx",
        "largest_difference": 1e-6,
    }
    return model_card(about, [], {})


def test_image_has_the_channels_of_the_network():
    assert "- `image`: (N, 3, 96, 128), float32, RGB." in card()
    grey = card(mean=(0.5,), std=(0.5,))
    assert "- `image`: (N, 1, 96, 128), float32, the brightness of the colours." in grey


def test_image_of_a_network_that_learned_from_crops_is_a_window():
    shown = card(crop=(32, 64))
    assert "- `image`: (N, 3, 32, 64), float32" in shown
    assert "a window of the image, which is 96 × 128 pixels after resizing" in shown
    assert "window" not in card()
    assert "window" not in card(crop=(96, 128))


@pytest.mark.parametrize(
    ("condition", "under"),
    [
        ("id", "its own norms;"),
        ("estimate", "the norms of the domain that an encoder estimated for each;"),
        ("id_or_estimate", "its own norms, or those estimated where"),
        ("mixture", "the mixture of all norms that an encoder estimated for each;"),
        ("embedding", "norms that follow each image;"),
    ],
)
def test_accuracy_is_said_of_the_norms_that_it_was_measured_under(condition, under):
    shown = card(condition)
    assert f"Each domain's test images under {under}" in shown
    estimated = condition not in ("id", "embedding")
    assert ("does not estimate domains" in shown) == estimated
