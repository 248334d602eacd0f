"""Any timm network with conditional norms."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import timm
from torch import nn

from domainnorm.backbones.architectures import USUAL
from domainnorm.backbones.conversion.convert import convert_norms
from domainnorm.backbones.conversion.example import example_image, refused, timm_part
from domainnorm.backbones.conversion.norm_rules import NormRule
from domainnorm.backbones.model import DomainModel
from domainnorm.errors import (
    CheckpointError,
    ConversionError,
    DomainNormError,
    UnknownNameError,
    similar,
)
from domainnorm.ranges import Unseen

_LOADER = logging.getLogger("timm.models._builder")
_MISSING = re.compile(r"Missing keys \((.*)\) discovered while loading")


def create_model(
    name: str,
    num_classes: int = 1000,
    norm: NormRule = None,
    domains: Sequence[str] = ("default",),
    *,
    where: str | Sequence[str] = "all",
    pretrained: bool = False,
    weights: str | Path | None = None,
    unseen: Unseen = "error",
    **options: Any,
) -> DomainModel:
    """Create a timm network and convert its norms.

    Args:
        name: A timm architecture, with an optional tag (``"resnet50.a1_in1k"``).
        num_classes: K; 0 for features.
        norm: See `convert_norms`.
        domains: Names of the domains.
        where: See `convert_norms`.
        pretrained: Load timm's weights: from the file ``<name>.safetensors`` in the folder that
            the environment variable DOMAINNORM_WEIGHTS names, if there is one, else from the hub.
        weights: A weights file to load instead; the head is left out when classes differ.
        unseen: See `DomainModel`.
        **options: Further keywords of `timm.create_model` (``drop_rate``, ``in_chans``, …).

    Returns:
        The model in training mode, as timm returns it.

    Raises:
        UnknownNameError: No such architecture; the message gives the nearest.
        CheckpointError: Weights that cannot be found or loaded.
        ConversionError: See `convert_norms`.
    """
    build = partial(timm.create_model, num_classes=num_classes)
    network = create_network(name, build, pretrained=pretrained, weights=weights, **options)
    if pretrained or weights is not None:
        _soften_new_head(network)
    example = example_image(network, **options)
    return convert_norms(network, norm, domains, where=where, example=example, unseen=unseen)


def find_weights(name: str) -> Path | None:
    """The file of offline weights for an architecture, or None.

    Looked up as ``<name>.safetensors`` in the folder DOMAINNORM_WEIGHTS, or where that is not set
    in ``weights/`` beside the folder DOMAINNORM_DATA.
    """
    folder = os.environ.get("DOMAINNORM_WEIGHTS")
    data = os.environ.get("DOMAINNORM_DATA")
    if folder is None and data is None:
        return None
    place = Path(folder) if folder else Path(str(data)).resolve().parent / "weights"
    file = place / f"{name}.safetensors"
    return file if file.is_file() else None


def create_network(
    name: str,
    build: Callable[..., nn.Module],
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    **options: Any,
) -> nn.Module:
    """Create a network around a timm architecture, its norms untouched.

    Args:
        name: A timm architecture, with an optional tag.
        build: Takes ``name``, ``pretrained`` and keywords of `timm.create_model`.
        pretrained: See `create_model`.
        weights: See `create_model`.
        **options: Further keywords for ``build``.

    Raises:
        UnknownNameError: No such architecture; the message gives the nearest.
        CheckpointError: Weights that cannot be found or loaded, or a file of another network.
        ConversionError: A keyword, or the value of one, that the network does not take.
    """
    if not timm.is_model(name):
        raise UnknownNameError("timm architecture", name, similar(name, timm.list_models(), USUAL))
    architecture, _, tag = name.partition(".")
    configs = timm.models.get_arch_pretrained_cfgs(architecture)
    tags = [known.partition(".")[2] for known in configs]
    if tag and tag not in tags:
        raise UnknownNameError(f"pretrained tag of {architecture}", tag, tags)
    if weights is None and pretrained:
        weights = find_weights(name)
    check_weights(weights)
    overlay = {} if weights is None else {"pretrained_cfg_overlay": {"file": str(weights)}}
    try:
        with missing_weights(name) as missing:
            loads = pretrained or weights is not None
            network = build(name, pretrained=loads, **options, **overlay)
    except TypeError as error:
        raise ConversionError(f"backbone.options of '{name}': {error}") from error
    except DomainNormError:
        raise
    except Exception as error:
        if not (pretrained or weights) and options:
            raise ConversionError(refused(options, error)) from error
        if not (pretrained or weights):
            raise
        source = weights or "timm's hub"
        raise CheckpointError(
            f"backbone '{name}': weights from {source} could not be loaded ({error}); without "
            "network, set backbone.weights to a file or DOMAINNORM_WEIGHTS to a folder of "
            f"them, e.g. {name}.safetensors"
        ) from error
    part: Any = timm_part(network)
    if weights is not None:
        _check_loaded(part, missing, f"backbone '{name}': {weights}", options)
    if "in_chans" in options and getattr(part, "pretrained_cfg", None):
        # timm leaves there what the weights were trained on.
        size = (options["in_chans"], *part.pretrained_cfg["input_size"][1:])
        part.pretrained_cfg = {**part.pretrained_cfg, "input_size": size}
    return network


def check_weights(weights: str | Path | None) -> None:
    """Raise a CheckpointError for a file that does not exist."""
    if weights is not None and not Path(weights).is_file():
        raise CheckpointError(f"backbone.weights: no file {weights}; give a .safetensors file")


def _check_loaded(
    network: nn.Module, missing: Sequence[str], where: str, options: Mapping[str, Any]
) -> None:
    """Refuse a file that lacks weights of the network besides its head.

    Options of a user may add layers that no file has, so that with them half may be missing.
    """
    grown = bool(options.keys() - {"in_chans"})
    if missing and (not grown or 2 * len(missing) > len(list(network.parameters()))):
        raise CheckpointError(
            f"{where}: lacks {len(missing)} weights of this network, such as {missing[0]}; it is "
            "of another network, or uses other names. Give the state_dict() of timm's network of "
            "this name"
        )


def _soften_new_head(network: nn.Module) -> None:
    """Let a head that pretrained weights did not fill start near zero.

    timm draws the heads of EfficientNets from ±1/sqrt(K): with few classes the first logits are
    so large that fine-tuning starts at several times the loss of guessing.
    """
    head = network.get_classifier() if hasattr(network, "get_classifier") else None  # type: ignore[operator]
    known = getattr(network, "pretrained_cfg", {}).get("num_classes")
    if isinstance(head, nn.Linear) and head.out_features != known:
        nn.init.normal_(head.weight, std=0.01)
        if head.bias is not None:
            nn.init.zeros_(head.bias)


@contextmanager
def missing_weights(architecture: str) -> Iterator[list[str]]:
    """Collect weights and biases that timm finds missing, besides the head, in creating a network.

    Where the number of classes differs, timm loads what fits and tells the rest in its log alone,
    below the level that is shown: weights of another network would leave all of it untrained. The
    names that such a file has instead, which follow, are not shown.

    Args:
        architecture: Name of the network, by which timm knows the head; an encoder has none, but
            its weights are loaded before it is cut off.
    """
    heads = timm.models.get_pretrained_cfg_value(architecture, "classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    missing: list[str] = []
    own, shown = _LOADER.level, _LOADER.getEffectiveLevel()

    def look(record: logging.LogRecord) -> bool:
        if match := _MISSING.match(record.getMessage()):
            missing.extend(
                name
                for name in match[1].split(", ")
                if name.endswith((".weight", ".bias")) and name.rpartition(".")[0] not in heads
            )
        return record.levelno >= shown and not missing

    _LOADER.addFilter(look)
    _LOADER.setLevel(min(shown, logging.INFO))
    try:
        yield missing
    finally:
        _LOADER.setLevel(own)
        _LOADER.removeFilter(look)
