"""What a conversion reports of the modulation."""

import pytest
import torch
from torch import nn

from domainnorm.backbones import convert_norms


def report(modulation, num_domains=3, **options):
    norm = {"statistics": "batch", "modulation": modulation, **options}
    network = nn.Sequential(nn.BatchNorm2d(8))
    names = [f"site_{i}" for i in range(num_domains)]
    (line,) = convert_norms(network, norm, names).conversion
    return line


@pytest.mark.parametrize(
    ("modulation", "options", "scalars"),
    [
        ("table", {}, 2 * 8),
        ("lowrank", {"rank": 3}, 2 * 3),
        ("hyper", {"embedding_size": 5, "hidden": 3}, 5),
        ("shared", {}, 0),
        ("none", {}, 0),
        ("spatial", {"map_channels": 3}, 0),
        ("style", {}, 0),
    ],
)
def test_bytes_per_domain_are_those_of_its_rows(modulation, options, scalars):
    assert report(modulation, **options).bytes_per_domain == 4 * scalars


@pytest.mark.parametrize("modulation", ["table", "lowrank", "hyper", "shared", "spatial", "none"])
def test_batch_statistics_keep_the_function(modulation):
    assert report(modulation).exact


def test_style_does_not_keep_the_function():
    assert not report("style").exact
    network = nn.Sequential(nn.BatchNorm2d(8)).eval()
    nn.init.constant_(network[0].bias, 1.0)
    image = torch.rand(2, 8, 4, 4)
    wanted = network(image)
    model = convert_norms(network, {"statistics": "batch", "modulation": "style"}, ["a"]).eval()
    assert (model(image) - wanted).abs().max() > 0.1
