"""A layer of every class that can be converted, away from its start, and an input for it."""

import inspect
from functools import partial

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct, convert_sync_batchnorm
from torch import nn

import domainnorm.tasks.decoders  # noqa: F401 - adds the norm of a decoder to the kinds
from domainnorm.backbones.conversion.kinds import KINDS

SIZE = 4


def layer_of(cls, affine=True):
    """A float64 layer of 4 channels (2 groups) with random tensors."""
    accepted = inspect.signature(cls).parameters
    wanted = {"affine": affine, "elementwise_affine": affine, "num_groups": 2}
    # Without probability: which values drop depends on the memory layout, too.
    wanted |= {"drop_layer": partial(nn.Dropout, p=0.0), "act_layer": nn.SiLU}
    if "num_groups" in accepted:
        wanted["num_channels"] = SIZE
    options = {name: value for name, value in wanted.items() if name in accepted}
    if cls is SyncBatchNormAct:  # made by timm's conversion alone
        layer = convert_sync_batchnorm(layer_of(BatchNormAct2d, affine))
    else:
        layer = cls(**options) if "num_channels" in options else cls(SIZE, **options)
    return randomized(layer).double()


@torch.no_grad()
def randomized(layer):
    for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
        if name in ("bias", "running_mean"):
            tensor.normal_(std=0.5)
        elif name in ("weight", "running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name == "num_batches_tracked":
            tensor.fill_(3)
    return layer


def input_of(cls, samples=6):
    """(N, C, L), (N, C, H, W), (N, C, D, H, W), or (N, H, W, C) for channels-last kinds."""
    spatial = {"1d": (5,), "3d": (2, 3, 5)}.get(cls.__name__[-2:], (3, 5))
    x = torch.randn(samples, SIZE, *spatial, dtype=torch.float64) * 2 + 0.5
    return x.movedim(1, -1).contiguous() if KINDS[cls].channels_last else x


def can_be_affine_free(cls):
    """Whether a layer of this class may come without scale and shift."""
    return bool({"affine", "elementwise_affine"} & set(inspect.signature(cls).parameters))
