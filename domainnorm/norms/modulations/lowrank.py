"""A shared scale and shift, and a low-rank difference for each domain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from domainnorm.errors import DomainNormError
from domainnorm.norms.modulations.base import DomainRows, UnconditionalRow
from domainnorm.registry import register


@register
class LowRankModulation(DomainRows):
    """A shared pair plus ``rank`` numbers per domain, in a basis that all domains share.

    ``scale[d] = scale + U[d] V``, and likewise ``shift``; soft weights mix the codes ``U[d]``. One
    more domain costs ``2 r`` parameters instead of the table's ``2 C``: ``2 (C + r C + D r)`` in
    all against ``2 D C``, fewer as soon as ``D > (1 + r) C / (C - r)``, about ``r + 1``.

    Args:
        num_features: C.
        num_domains: D.
        rank: r, at least 1.
        dropout: Probability in [0, 1) with which a training sample gets a learned row that knows
            no domain. See `UnconditionalRow`.

    Shape:
        ``scale``, ``shift``: (1, C), starting at 1 and 0. ``scale_code``, ``shift_code``: (D, r),
        starting at 0. ``scale_basis``, ``shift_basis``: (r, C), drawn from N(0, 1/C).

    Raises:
        DomainNormError: A rank below 1.

    Reference:
        Hu et al., LoRA, ICLR 2022, arXiv:2106.09685, eq. 3.
        Differs: the low-rank matrix is the (D, C) table of domain rows, not a weight update.
    """

    row_names = ("scale_code", "shift_code")

    def __init__(
        self, num_features: int, num_domains: int, *, rank: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if rank < 1:
            raise DomainNormError(f"rank: got {rank}, expected 1 or more; 'shared' has no rows")
        self.scale = nn.Parameter(torch.ones(1, num_features))
        self.shift = nn.Parameter(torch.zeros(1, num_features))
        self.scale_code = nn.Parameter(torch.zeros(num_domains, rank))
        self.shift_code = nn.Parameter(torch.zeros(num_domains, rank))
        # Not zero as well: the product of two zeros would never learn.
        self.scale_basis = nn.Parameter(torch.randn(rank, num_features) * num_features**-0.5)
        self.shift_basis = nn.Parameter(torch.randn(rank, num_features) * num_features**-0.5)
        self.unconditional = UnconditionalRow(num_features, dropout) if dropout else None

    def all_rows(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of every domain, (D, C) each."""
        # Not a product of matrices: it is narrow under autocast, and rounds rows by how many there
        # are, so that one more domain would change the outputs of the rest.
        scale = self.scale + (self.scale_code[:, :, None] * self.scale_basis).sum(1)
        shift = self.shift + (self.shift_code[:, :, None] * self.shift_basis).sum(1)
        return scale, shift

    @torch.no_grad()
    def start(self, scale: Tensor, shift: Tensor) -> None:
        """The shared pair becomes ``scale`` and ``shift`` (C,), all differences zero."""
        self.scale.copy_(scale.expand_as(self.scale))
        self.shift.copy_(shift.expand_as(self.shift))
        self.scale_code.zero_()
        self.shift_code.zero_()
        if self.unconditional is not None:
            self.unconditional.start(scale, shift)

    def extra_repr(self) -> str:
        """The rank, for ``print(model)``."""
        return f"rank={len(self.scale_basis)}"
