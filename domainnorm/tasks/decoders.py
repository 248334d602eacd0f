"""Segmentation networks: decoders of segmentation_models_pytorch over timm encoders."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.decoders.upernet.decoder import LayerNorm2d
from torch import nn

from domainnorm.backbones import (
    DomainModel,
    convert_norms,
    create_network,
    example_image,
    register_norm_class,
)
from domainnorm.errors import ConversionError, unknown
from domainnorm.tasks.pyramid import Pyramid

# Of UPerNet's decoder: layer norm over the channels of maps, like timm's class of that name.
register_norm_class(LayerNorm2d, "layer", axes=2, to_channels_last=True)

_HALVINGS = 5  # a Unet doubles the size of its maps five times
_NARROWEST = 16  # fewer channels at full size than classes would be a bottleneck before the output


def _unet(width: int) -> dict[str, Any]:
    narrowest = min(width, _NARROWEST)
    return {"decoder_channels": [max(narrowest, width >> step) for step in range(_HALVINGS)]}


DECODERS: dict[str, tuple[type[nn.Module], Callable[[int], dict[str, Any]]]] = {
    "unet": (smp.Unet, _unet),
    "fpn": (
        smp.FPN,
        lambda width: {"decoder_pyramid_channels": width, "decoder_segmentation_channels": width},
    ),
    "deeplabv3plus": (smp.DeepLabV3Plus, lambda width: {"decoder_channels": width}),
    "segformer": (smp.Segformer, lambda width: {"decoder_segmentation_channels": width}),
    "upernet": (smp.UPerNet, lambda width: {"decoder_channels": width}),
    "dpt": (
        smp.DPT,
        lambda width: {
            "decoder_fusion_channels": width,
            "decoder_intermediate_channels": (width, width, width, width),
        },
    ),
    "pyramid": (Pyramid, lambda width: {"decoder_channels": width}),
}
PLAIN = ("dpt", "pyramid")  # for encoders whose maps are all of one size
_DPT_STRIDE = 32  # of its coarsest maps, which are doubled until they meet the finest


def create_segmentation_model(
    name: str,
    num_classes: int,
    norm: Any = None,
    domains: Sequence[str] = ("default",),
    *,
    decoder: str = "unet",
    width: int = 128,
    where: str | Sequence[str] = "all",
    unseen: Any = "error",
    **options: Any,
) -> DomainModel:
    """Create a segmentation network over a timm encoder and convert the norms of both its parts.

    Outputs have the size of the input. ``where`` and rules can name the parts of the network:
    ``where="encoder"``, ``norm={"encoder": "cin", "decoder": "dsbn"}``. ``early`` and ``late``
    depend on the feature maps of the encoder; the decoder is ``late``.

    Args:
        name: A timm architecture, with an optional tag.
        num_classes: K.
        norm: See `domainnorm.convert_norms`.
        domains: Names of the domains.
        decoder: One of ``unet``, ``fpn``, ``deeplabv3plus``, ``segformer``, ``upernet`` for
            encoders with feature maps of several sizes, ``dpt`` and ``pyramid`` for plain vision
            transformers, ``dpt`` with patches of a power of two.
        width: Largest number of channels in the decoder. A Unet halves it at each level, down to
            16. ``fpn`` needs a multiple of 32, since its group norms have 32 groups.
        where: See `domainnorm.convert_norms`.
        unseen: See `domainnorm.DomainModel`.
        **options: Of the encoder: ``pretrained`` and ``weights``, see `domainnorm.create_model`,
            and keywords of `timm.create_model`.

    Shape:
        - image: (N, 3, H, W), or (N, 1, H, W) with ``in_chans=1``; H and W are multiples of
          `size_multiple`
        - logits: (N, K, H, W)

    Raises:
        UnknownNameError: No such architecture; the message gives the nearest.
        CheckpointError: Weights that cannot be found or loaded.
        ConversionError: No such decoder, an encoder it cannot use, or see `convert_norms`.
    """
    if decoder not in DECODERS:
        raise ConversionError(f"task.decoder: {unknown('decoder', decoder, DECODERS)}")
    step = 32 if decoder == "fpn" else 1
    if width < 1 or width % step:
        raise ConversionError(f"task.width: {width}, decoder '{decoder}' takes multiples of {step}")
    build = partial(_build, decoder=decoder, num_classes=num_classes, width=width)
    network = create_network(name, build, **options)
    example = example_image(network, **options)
    return convert_norms(network, norm, domains, where=where, example=example, unseen=unseen)


def size_multiple(network: nn.Module) -> int:
    """What height and width of images must be multiples of; 1 for any size."""
    if not getattr(network, "requires_divisible_input_shape", False):
        return 1
    encoder: Any = network.encoder
    stride = int(encoder.output_stride)
    return max(stride, _DPT_STRIDE) if isinstance(network, smp.DPT) else stride


def _build(
    name: str, *, pretrained: bool, decoder: str, num_classes: int, width: int, **options: Any
) -> nn.Module:
    kind, channels = DECODERS[decoder]
    if decoder in PLAIN:
        options |= _of_plain(name, decoder, options)
    told = logging.getLogger("timm.models._builder")
    # timm warns that the classifier's weights find no place in an encoder, which has none.
    told.addFilter(_is_no_warning)
    try:
        network: nn.Module = kind(
            f"tu-{name}",
            encoder_weights=True if pretrained else None,
            classes=num_classes,
            in_channels=options.pop("in_chans", 3),
            **channels(width),
            **options,
        )
    except (ValueError, RuntimeError, AssertionError, AttributeError, TypeError) as error:
        dilated = decoder == "deeplabv3plus" and "output_stride" not in options
        if dilated and (not str(error) or "output_stride" in str(error)):
            raise ConversionError(
                f"backbone '{name}': decoder 'deeplabv3plus' dilates the last stages of its "
                "encoder, which this network does not support; take a ResNet or EfficientNet, or "
                "decoder 'unet', 'fpn', 'segformer' or 'upernet'"
            ) from error
        if pretrained or isinstance(error, TypeError):
            raise
        plain = "one of these two" if decoder not in PLAIN else "one of the others"
        raise ConversionError(
            f"backbone '{name}': not an encoder for decoder '{decoder}' ({error}); plain vision "
            "transformers need 'pyramid' or 'dpt', networks with maps of several sizes need the "
            f"other decoders: try {plain}"
        ) from error
    finally:
        told.removeFilter(_is_no_warning)
    if decoder in PLAIN:
        _prune(network)
    return network


def _of_plain(name: str, decoder: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Further options of a plain vision transformer: images of any size, and what dpt reads."""
    with torch.device("meta"):
        network = timm.create_model(name)
    found: dict[str, Any] = {}
    takes = inspect.signature(type(network).__init__).parameters
    if "dynamic_img_size" in takes:  # position embeddings are resampled where sizes differ
        found["dynamic_img_size"] = options.get("dynamic_img_size", True)
    if decoder == "dpt":
        stride = int(getattr(network, "feature_info", [{"reduction": 1}])[-1]["reduction"])
        if stride & (stride - 1):
            raise ConversionError(
                f"backbone '{name}': decoder 'dpt' needs patches whose size is a power of two, got "
                f"{stride} pixels; take decoder 'pyramid'"
            )
        if not getattr(network, "num_prefix_tokens", 0):
            found["decoder_readout"] = "ignore"  # there is no class token to read
    return found


def _prune(network: Any) -> None:
    """Take away the encoder's last norm and its head, which no map comes from.

    Parameters without gradients would make several processes wait for them.
    """
    prune = getattr(network.encoder.model, "prune_intermediate_layers", None)
    if prune is not None:
        prune(1, prune_norm=True, prune_head=True)


def _is_no_warning(record: logging.LogRecord) -> bool:
    return record.levelno != logging.WARNING
