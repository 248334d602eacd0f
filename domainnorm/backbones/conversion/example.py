"""Images that a network takes, as its pretrained configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from domainnorm.backbones.conversion.norm_layers import evaluating
from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ConversionError

_PROBE_SIZE = 64


def data_config(model: nn.Module) -> dict[str, Any]:
    """Input size, mean, std and interpolation that the backbone was trained with.

    Returns:
        ``input_size`` (C, H, W), ``mean``, ``std``, ``interpolation``, ``crop_pct``; those of the
        encoder where the model has one. ``mean`` and ``std`` are those of brightness where the
        network takes one channel.
    """
    network = model.backbone if isinstance(model, DomainModel) else model
    config: dict[str, Any] = timm.data.resolve_data_config({}, model=timm_part(network))
    if config["input_size"][0] == 1:  # timm's numbers are those of colours
        config |= {key: (sum(config[key]) / len(config[key]),) for key in ("mean", "std")}
    return config


def timm_part(network: nn.Module) -> nn.Module:
    """The part that knows its pretrained configuration, such as an encoder; else all of it."""
    return next((m for m in network.modules() if getattr(m, "pretrained_cfg", None)), network)


def example_image(network: nn.Module, **options: Any) -> torch.Tensor | None:
    """An input that shows what the norm layers see, small where the network takes small ones.

    Args:
        network: A timm network, or one with its ``pretrained_cfg``.
        **options: What it was created with; of these, ``in_chans`` and ``img_size`` are heeded.

    Returns:
        (1, C, H, W), or None where none is known: no parameters, or on the meta device.

    Raises:
        ConversionError: The value of an option that the network fails on.
    """
    parameter = next(network.parameters(), None)
    if parameter is None or parameter.device.type == "meta":
        return None
    config = data_config(network)
    known = config["input_size"][0]
    # The first convolution of TResNet and CSATv2 sees 4×4 or 8×8 pixels as channels.
    channels = (options["in_chans"],) if "in_chans" in options else (_first(network, known), known)
    full = options.get("img_size", config["input_size"][1:])
    full = (full, full) if isinstance(full, int) else tuple(full)
    known_config = getattr(timm_part(network), "pretrained_cfg", {})
    patch = _patch_of_any_size(network)
    fixed = bool(known_config.get("fixed_input_size")) and not patch
    generator = torch.Generator().manual_seed(0)
    small = _PROBE_SIZE + -_PROBE_SIZE % max(patch, 1)
    sizes = [full] if fixed else [(small, small), full]
    for shape in dict.fromkeys((count, *size) for size in sizes for count in channels):
        example = torch.rand(1, *shape, generator=generator).to(parameter)
        try:
            with evaluating(network):
                network(example)
        except (RuntimeError, AssertionError):  # Inception and others refuse small images
            continue
        except (TypeError, ValueError) as error:
            if options:
                raise ConversionError(refused(options, error)) from error
            raise
        return example
    return None


def _patch_of_any_size(network: nn.Module) -> int:
    """Side of the patches of a transformer that resamples its position embeddings; 0 of others."""
    for module in network.modules():
        if getattr(module, "dynamic_img_size", False):
            maps: Any = module.feature_info
            return int(maps[-1]["reduction"])
    return 0


def _first(network: nn.Module, default: int) -> int:
    """Input channels of the first convolution."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return next((m.in_channels for m in network.modules() if isinstance(m, kinds)), default)


def refused(options: Mapping[str, Any], error: Exception) -> str:
    """What is said of options that a network fails on."""
    return f"backbone.options: {dict(options)} cannot be used by this network ({error!r})"
