"""Networks of torchvision and segmentation_models_pytorch, whose norms are their own classes."""

import copy
import subprocess
import sys

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision

from domainnorm.backbones import convert_norms, fold_domain
from tests.backbones.networks import DOMAINS, randomize, randomize_rows

slow = pytest.mark.slow
OF_TORCHVISION = [
    "convnext_tiny",
    pytest.param("resnet18", marks=slow),
    pytest.param("mobilenet_v3_small", marks=slow),
    pytest.param("efficientnet_b0", marks=slow),
    pytest.param("regnet_y_400mf", marks=slow),
    pytest.param("shufflenet_v2_x0_5", marks=slow),
    pytest.param("swin_v2_t", marks=slow),
]
DECODERS = [
    ("UPerNet", "resnet18"),
    ("Segformer", "mit_b0"),
    *(
        pytest.param(decoder, "resnet18", marks=slow)
        for decoder in ("Unet", "UnetPlusPlus", "Linknet", "DeepLabV3Plus", "PAN", "Segformer")
    ),
    *(
        pytest.param(decoder, "mit_b0", marks=slow)
        for decoder in ("Unet", "MAnet", "FPN", "UPerNet")
    ),
]


def keeps_its_function(network, size):
    """Each domain gives the outputs of the network before, and so does what it is folded to."""
    network = randomize(network).eval()
    image = torch.rand(2, 3, size, size)
    with torch.no_grad():
        wanted = network(image)
        model = convert_norms(copy.deepcopy(network), None, DOMAINS).eval()
        torch.testing.assert_close(model(image, ["a", "c"]), wanted, rtol=1e-4, atol=1e-4)
        randomize_rows(model)
        wanted = model(image, "b")
        folded = fold_domain(model, "b").eval()
        torch.testing.assert_close(folded(image), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_networks_of_torchvision(name):
    torch.manual_seed(0)
    keeps_its_function(torchvision.models.get_model(name, weights=None, num_classes=4), 64)


def test_frozen_batch_norms_of_torchvision():
    frozen = torchvision.ops.FrozenBatchNorm2d
    network = torchvision.models.resnet18(weights=None, num_classes=4, norm_layer=frozen)
    keeps_its_function(network, 64)


@pytest.mark.parametrize(("decoder", "encoder"), DECODERS)
def test_decoders_for_masks(decoder, encoder):
    torch.manual_seed(0)
    network = getattr(smp, decoder)(encoder_name=encoder, encoder_weights=None, classes=2)
    keeps_its_function(network, 128 if decoder == "PAN" else 64)


@pytest.mark.slow
def test_their_classes_are_known_whatever_was_imported_before():
    program = (
        "import segmentation_models_pytorch as smp, domainnorm\n"
        "network = smp.UPerNet('resnet18', encoder_weights=None)\n"
        "print(len(domainnorm.convert_norms(network, None, ['a']).conversion))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 20
