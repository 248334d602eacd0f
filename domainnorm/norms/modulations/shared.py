"""One scale and shift for all domains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.norms.modulations.base import Modulation
from domainnorm.registry import register


@register
class SharedModulation(Modulation):
    """The same scale and shift for every sample: the unconditioned layer.

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
