"""Embeddings of images by an encoder that is one of the network's layers."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from domainnorm.encoders import Attributes, DomainEncoder
from domainnorm.errors import ConditionError
from domainnorm.norms.modulations.base import Modulation
from domainnorm.ranges import problem_of_embedding


def check_embedding(encoder: DomainEncoder, modulations: Iterable[Modulation]) -> None:
    """Whether norms with these modulations can follow an encoder that learns with them.

    Raises:
        ConditionError: It reads what they normalize, or they take no embedding of its size.
    """
    if encoder.reads_backbone:
        raise ConditionError(
            "encoder: this one reads what the first norm gets, which itself wants an "
            "embedding; use 'style', 'cnn', 'metadata' or 'text'"
        )
    sizes = (modulation.embedding_size for modulation in modulations)
    taken = [size for size in sizes if size is not None]
    problem = problem_of_embedding(encoder.embedding_size, taken)
    if problem:
        raise ConditionError(f"encoder: {problem}")


def looked_at(
    encoder: DomainEncoder, image: Tensor, attributes: Attributes | None, *, varied: bool
) -> Tensor:
    """Features (N, F) of images (N, C, H, W): learned with the network, or without any weights.

    Args:
        encoder: Standardized.
        image: (N, C, H, W); of an encoder that reads attributes only N counts.
        attributes: See `DomainModel.forward`.
        varied: As in training, where attributes are lost at random.

    Raises:
        ConditionError: Attributes are missing, do not fit, or are not what it reads.
    """
    if encoder.reads_attributes and attributes is None:
        raise ConditionError(
            "attributes: missing; the norms of this model follow them: pass attributes="
            "{column: [value or None of each image]}, {} where nothing is known, or embedding="
        )
    given = encoder.inputs(image, attributes)
    fixed = torch.is_grad_enabled() and not encoder.learns_features
    with _full_precision(image), torch.no_grad() if fixed else nullcontext():
        seen = encoder.features(given if encoder.reads_attributes else encoder.wide(given))
        return encoder.varied(seen, None) if varied else seen


def embedded(encoder: DomainEncoder, features: Tensor) -> Tensor:
    """Features (N, F) -> embeddings (N, E), whatever autocast does."""
    with _full_precision(features):
        return encoder.embed(features)


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Moments and distances of narrow types are worth nothing; exports take no such context."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
