"""Modulations that are the same for all samples: one pair, or none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.errors import ConversionError
from domainnorm.norms.layer import Modulation
from domainnorm.registry import register


@register
class SharedModulation(Modulation):
    """All samples have the same scale and shift: the unconditioned layer.

    Args:
        num_features: C.
        num_domains: D; the pair does not depend on it.

    Shape:
        ``scale``, ``shift``: (1, C), starting at 1 and 0.
    """

    def __init__(self, num_features: int, num_domains: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, num_features))
        self.shift = nn.Parameter(torch.zeros(1, num_features))

    def table(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, (1, C) each."""
        return self.scale, self.shift

    def forward(self, condition: Condition, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift, (1, C) each."""
        return self.scale, self.shift

    @torch.no_grad()
    def start(self, scale: Tensor, shift: Tensor) -> None:
        """Every row becomes ``scale`` and ``shift`` (C,)."""
        self.scale.copy_(scale.expand_as(self.scale))
        self.shift.copy_(shift.expand_as(self.shift))


@register("none")
class NoModulation(Modulation):
    """No scale and shift: the output is the normalized features.

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
