"""Networks for these tests: every state that a conversion could lose is random."""

import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from domainnorm.backbones import convert_norms

DOMAINS = ("a", "b", "c")
# One of each way to own rows.
NORMS = [
    "dsbn",
    "cbn",
    "cin",
    {"statistics": "domain", "modulation": "lowrank"},
    {"statistics": "batch", "modulation": "hyper"},
    {"statistics": "mixed", "modulation": "table", "parts": ["instance", "domain"]},
]


def randomize(network):
    for module in network.modules():
        if isinstance(module, _NormBase):
            for tensor in (module.running_mean, module.bias):
                if tensor is not None:
                    nn.init.normal_(tensor, std=0.1)
            for tensor in (module.running_var, module.weight):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
            if module.num_batches_tracked is not None:
                module.num_batches_tracked.fill_(3)
    return network


def plain(name, dtype=torch.float64, num_classes=5, **options):
    return randomize(timm.create_model(name, num_classes=num_classes, **options)).to(dtype)


def converted(
    name="test_resnet", norm="dsbn", domains=DOMAINS, dtype=torch.float32, size=64, **options
):
    """A converted network whose domains differ."""
    example = torch.rand(1, 3, size, size, dtype=dtype)
    model = convert_norms(plain(name, dtype, **options), norm, domains, example=example)
    return randomize_rows(model)


@torch.no_grad()
def randomize_rows(model):
    for norm in model.norms():
        norm.modulation.scale.uniform_(0.5, 1.5)
        norm.modulation.shift.normal_(std=0.1)
        if hasattr(norm.statistics, "running_mean"):
            norm.statistics.running_mean.normal_(std=0.1)
            norm.statistics.running_var.uniform_(0.5, 1.5)
    return model


def make(norm="dsbn", domains=DOMAINS):
    """A converted network in evaluation whose rows differ, for any modulation with rows."""
    model = converted(norm=norm, domains=domains).eval()
    for owned in model.norms():
        for rows in owned.modulation.rows():
            nn.init.normal_(rows, mean=1, std=0.2)
    return model


@torch.no_grad()
def copy_row(model, network, row):
    """Give a plain network the rows of one domain."""
    for layer in model.conversion:
        norm, target = model.backbone.get_submodule(layer.path), network.get_submodule(layer.path)
        target.weight.copy_(norm.modulation.scale[row])
        target.bias.copy_(norm.modulation.shift[row])
        target.running_mean.copy_(norm.statistics.running_mean[row])
        target.running_var.copy_(norm.statistics.running_var[row])
    return network
