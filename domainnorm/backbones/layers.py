"""How deep each parameter of a timm network lies, for learning rates by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.models._manipulate import group_with_matcher
from torch import nn

from domainnorm.backbones.conversion.example import timm_part
from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ConversionError

_BEHIND = ""  # named after no layer: it comes to lie with what follows the last one


def layer_scales(model: DomainModel, decay: float) -> dict[nn.Parameter, float]:
    """Factors of the learning rate that fall with the distance from the head.

    ``decay^(L - l)`` for layer l of 0 (the stem) … L; the classifier is in layer L, as are decoder
    and head of a network for masks. What a layer is, a block of a transformer or of a ResNet, timm
    says (``group_matcher``); its norms lie in it, converted or not.

    Args:
        model: Around a timm network, or one with a timm network as its encoder.
        decay: In (0, 1].

    Returns:
        Parameter -> factor, of the timm network; 1 for all that are not in it.

    Raises:
        ConversionError: A network of which timm knows no layers.

    Reference:
        Bao et al., BEiT, ICLR 2022, arXiv:2106.08254, app. G (layer-wise decay).
    """
    part = timm_part(model.backbone)
    parameters = dict(part.named_parameters())
    named, matcher = _named_as_known(part, list(parameters))
    depths = group_with_matcher(((name, None) for name in (*named, _BEHIND)), matcher, reverse=True)
    last = depths[_BEHIND]
    return {
        parameter: decay ** (last - depths[name])
        for name, parameter in zip(named, parameters.values(), strict=True)
    }


def _named_as_known(part: nn.Module, names: list[str]) -> tuple[list[str], Any]:
    """Names of parameters as the matcher of their network knows them, and that matcher."""
    for prefix, module in (("", part), ("model.", getattr(part, "model", None))):
        matcher: Callable[[], Any] | None = getattr(module, "group_matcher", None)
        if matcher is not None:
            return [name.removeprefix(prefix) for name in names], matcher()
    # A list of feature maps has the modules of the network, those of its sequences one by one, with
    # "stages_0" for "stages.0".
    architecture = (getattr(part, "pretrained_cfg", None) or {}).get("architecture")
    if not architecture or not timm.is_model(architecture):
        raise ConversionError(
            f"method.layer_decay: {type(part).__name__} does not say what its layers are; networks "
            "of timm do, else leave it at 1"
        )
    with torch.device("meta"):
        whole: Any = timm.create_model(architecture)
    known = {path for path, _ in whole.named_modules()}
    return [_split(name, known) for name in names], whole.group_matcher()


def _split(name: str, known: set[str]) -> str:
    first, dot, rest = name.partition(".")
    places = [place for place, letter in enumerate(first) if letter == "_"]
    spelled = [first, *(f"{first[:place]}.{first[place + 1 :]}" for place in places)]
    return next((one for one in spelled if one in known), first) + dot + rest
