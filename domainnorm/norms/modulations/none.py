"""No scale and no shift."""

from __future__ import annotations

import torch
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.errors import ConversionError
from domainnorm.norms.modulations.base import Modulation
from domainnorm.registry import register


@register
class NoModulation(Modulation):
    """Scale 1 and shift 0, without parameters: the normalized features as they are.

    Args:
        num_features: C.
        num_domains: D; nothing depends on it.

    Shape:
        ``scale``, ``shift``: (1, C), constants that are not stored.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, num_features: int, num_domains: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1, num_features), persistent=False)
        self.register_buffer("shift", torch.zeros(1, num_features), persistent=False)

    def table(self) -> tuple[Tensor, Tensor]:
        """Ones and zeros, (1, C) each."""
        return self.scale, self.shift

    def forward(self, condition: Condition, x: Tensor) -> tuple[Tensor, Tensor]:
        """Ones and zeros, (1, C) each."""
        return self.scale, self.shift

    def start(self, scale: Tensor, shift: Tensor) -> None:
        """Nothing, if ``scale`` is 1 and ``shift`` is 0 everywhere.

        Raises:
            ConversionError: They are not, and what the replaced layer had learned would be lost.
        """
        if not (bool((scale == 1).all()) and bool((shift == 0).all())):
            raise ConversionError(
                f"{self.path}: modulation 'none' would lose the scale and shift of the layer it "
                "replaces; use 'shared' to keep them, or 'table' for a pair per domain"
            )
