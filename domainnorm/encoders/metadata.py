"""Metadata of the image (scanner, stain, hour, weather) as its domain."""

from __future__ import annotations

from typing import Any

from torch import nn

from domainnorm.encoders.attribute_encoder import AttributeEncoder, Vocabulary
from domainnorm.registry import register


@register
class MetadataEncoder(AttributeEncoder):
    """Attributes of the image (scanner, stain, hour) instead of its pixels; some may be missing.

    A text is a category with a learned row for each value of the training images. Numbers are
    standardized. Missing values and values unknown from training use a learned row of their column.
    For texts that share words, see `TextEncoder`.

    Args:
        num_domains: D.
        network: Not used.
        in_chans: Not used.
        **options: See `AttributeEncoder`.

    Raises:
        DomainNormError: A dropout out of range.

    Reference:
        Guo and Berkhahn, Entity Embeddings of Categorical Variables, 2016, arXiv:1604.06737 (rows
        of categories).
    """

    def __init__(
        self, num_domains: int, network: nn.Module | None = None, in_chans: int = 3, **options: Any
    ) -> None:
        super().__init__(num_domains, Vocabulary(), **options)
