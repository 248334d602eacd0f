"""A scale and shift for each domain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from domainnorm.norms.modulations.base import DomainRows, UnconditionalRow
from domainnorm.registry import register


@register
class TableModulation(DomainRows):
    """A row of scale and a row of shift per domain; soft weights mix rows.

    ``scale[n] = table[domain[n]]``, or ``Σ_d weights[n, d] table[d]``.

    Args:
        num_features: C.
        num_domains: D.
        dropout: Probability in [0, 1) with which a training sample gets a learned row that knows
            no domain; the model can then be called without one. See `UnconditionalRow`.

    Shape:
        ``scale``, ``shift``: (D, C), starting at 1 and 0.

    Reference:
        Dumoulin et al., A Learned Representation for Artistic Style, ICLR 2017, arXiv:1610.07629,
        eq. 5.
    """

    row_names = ("scale", "shift")

    def __init__(self, num_features: int, num_domains: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_domains, num_features))
        self.shift = nn.Parameter(torch.zeros(num_domains, num_features))
        self.unconditional = UnconditionalRow(num_features, dropout) if dropout else None

    def all_rows(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of every domain, (D, C) each."""
        return self.scale, self.shift

    @torch.no_grad()
    def start(self, scale: Tensor, shift: Tensor) -> None:
        """Every row becomes ``scale`` and ``shift`` (C,)."""
        self.scale.copy_(scale.expand_as(self.scale))
        self.shift.copy_(shift.expand_as(self.shift))
        if self.unconditional is not None:
            self.unconditional.start(scale, shift)
