"""Heads of networks: what turns features into logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConversionError


def heads_of(model: DomainModel) -> list[nn.Module]:
    """The network's classifier or segmentation head, two of a distilled network, or none."""
    network: Any = model.backbone
    found: Any = getattr(network, "segmentation_head", None)
    if found is None and hasattr(network, "get_classifier"):
        found = network.get_classifier()
    heads = found if isinstance(found, tuple) else (found,)
    return [head for head in heads if head is not None and any(True for _ in head.parameters())]


def head_of(model: DomainModel) -> nn.Module:
    """The first of `heads_of`.

    Raises:
        ConversionError: There is none.
    """
    heads = heads_of(model)
    if not heads:
        raise ConversionError(
            "method: this network has no classifier, and the method needs the features in front of "
            "it; take a network with num_classes above 0"
        )
    return heads[0]


def seen_by_head(model: DomainModel, predict: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Features that reach the head while a function makes logits with the model, and these."""
    seen: list[Tensor] = []
    hook = head_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = predict()
    finally:
        hook.remove()
    features = seen[0]
    if logits.ndim == 2 and features.ndim > 2:
        features = features.flatten(2).mean(2)  # a convolution on one pixel as the classifier
    return features, logits


def pretrained_part(model: DomainModel) -> set[nn.Parameter]:
    """Parameters of the encoder of a network for masks, else of all in front of the classifier."""
    encoder = getattr(model.backbone, "encoder", None)
    if encoder is not None and hasattr(model.backbone, "segmentation_head"):
        return set(encoder.parameters())
    behind = {parameter for head in heads_of(model) for parameter in head.parameters()}
    return set(model.backbone.parameters()) - behind


def num_classes(model: DomainModel) -> int:
    """K, outputs of the head of the network."""
    found = [m for m in head_of(model).modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    last = found[-1]
    return last.out_features if isinstance(last, nn.Linear) else last.out_channels


def num_features(model: DomainModel) -> int:
    """F, channels of the features that reach the head of the network."""
    first = next(m for m in head_of(model).modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    return first.in_features if isinstance(first, nn.Linear) else first.in_channels
