"""Modulations that look their pair up by domain, and a row for samples whose domain is not told."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.norms.layer import Modulation
from domainnorm.registry import register

Rows: TypeAlias = Callable[[Condition], tuple[Tensor, Tensor]]


class DomainRows(Modulation):
    """A pair for each domain, and one for samples of unknown domain where condition dropout is on.

    Subclasses say in `all_rows` what the domains' pairs are.

    Shape:
        ``scale``, ``shift``: (rows, C), starting at 1 and 0.
    """

    unconditional: UnconditionalRow | None

    def __init__(self, num_rows: int, num_features: int, dropout: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_rows, num_features))
        self.shift = nn.Parameter(torch.zeros(num_rows, num_features))
        self.unconditional = UnconditionalRow(num_features, dropout) if dropout else None

    @abc.abstractmethod
    def all_rows(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of every domain, (D, C) each."""

    def table(self) -> tuple[Tensor, Tensor] | None:
        """`all_rows`; None where a sample may lose its domain."""
        return self.all_rows() if self.unconditional is None else None

    def forward(self, condition: Condition, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of each sample, (N, C) each; (1, C) for samples of unknown domain."""
        if self.unconditional is None:
            return self._select(condition)
        scale, shift = self.unconditional(condition, self._select)
        return scale, shift

    def _select(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """The pair of each sample's domain, (N, C) each."""
        scale, shift = self.all_rows()
        return condition.select(scale), condition.select(shift)

    @torch.no_grad()
    def start(self, scale: Tensor, shift: Tensor) -> None:
        """Every row becomes ``scale`` and ``shift`` (C,)."""
        self.scale.copy_(scale.expand_as(self.scale))
        self.shift.copy_(shift.expand_as(self.shift))
        if self.unconditional is not None:
            self.unconditional.start(scale, shift)


@register("table")
class TableModulation(DomainRows):
    """Each domain has a row of scale and a row of shift; soft weights mix rows.

    ``scale[n] = table[domain[n]]``, or ``Σ_d weights[n, d] table[d]``.

    Args:
        num_features: C.
        num_domains: D.
        dropout: Probability in [0, 1) that a training sample uses a learned row without a domain.
            The model can then be called without a domain. See `UnconditionalRow`.

    Shape:
        ``scale``, ``shift``: (D, C), starting at 1 and 0.

    Reference:
        Dumoulin et al., A Learned Representation for Artistic Style, ICLR 2017, arXiv:1610.07629,
        eq. 5.
    """

    row_names = ("scale", "shift")

    def __init__(self, num_features: int, num_domains: int, *, dropout: float = 0.0) -> None:
        super().__init__(num_domains, num_features, dropout)

    def all_rows(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of every domain, (D, C) each."""
        return self.scale, self.shift


@register("lowrank")
class LowRankModulation(DomainRows):
    """A shared pair, plus ``rank`` numbers per domain in a basis that all domains share.

    ``scale[d] = scale + U[d] V``, and likewise ``shift``; soft weights mix the codes ``U[d]``. One
    more domain costs ``2 r`` parameters instead of the table's ``2 C``: ``2 (C + r C + D r)`` in
    all against ``2 D C``, fewer as soon as ``D > (1 + r) C / (C - r)``, about ``r + 1``.

    Args:
        num_features: C.
        num_domains: D.
        rank: r, at least 1.
        dropout: Probability in [0, 1) that a training sample uses a learned row without a domain.
            See `UnconditionalRow`.

    Shape:
        ``scale``, ``shift``: (1, C), starting at 1 and 0. ``scale_code``, ``shift_code``: (D, r),
        starting at 0. ``scale_basis``, ``shift_basis``: (r, C), drawn from N(0, 1/C).

    Reference:
        Hu et al., LoRA, ICLR 2022, arXiv:2106.09685, eq. 3.
        Differs: the low-rank matrix is the (D, C) table of domain rows, not a weight update.
    """

    row_names = ("scale_code", "shift_code")

    def __init__(
        self, num_features: int, num_domains: int, *, rank: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__(1, num_features, dropout)
        self.scale_code = nn.Parameter(torch.zeros(num_domains, rank))
        self.shift_code = nn.Parameter(torch.zeros(num_domains, rank))
        # Not zero as well: the product of two zeros would never learn.
        self.scale_basis = nn.Parameter(torch.randn(rank, num_features) * num_features**-0.5)
        self.shift_basis = nn.Parameter(torch.randn(rank, num_features) * num_features**-0.5)

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
        super().start(scale, shift)
        self.scale_code.zero_()
        self.shift_code.zero_()

    def extra_repr(self) -> str:
        """The rank, for ``print(model)``."""
        return f"rank={len(self.scale_basis)}"


class UnconditionalRow(nn.Module):
    """A learned row for samples whose domain is dropped or unknown.

    Training: a sample gets this row with probability ``dropout``, else its own. The model draws
    once per sample and batch (`Condition.chance`): all layers drop the same samples, so evaluation
    without a domain is a case that training has seen. Evaluation: only for conditions without
    domain and weights, and for samples of unseen domains.

    Args:
        num_features: C.
        dropout: Probability in (0, 1).

    Shape:
        ``scale``, ``shift``: (1, C), starting at 1 and 0.

    Reference:
        Ho and Salimans, Classifier-Free Diffusion Guidance, NeurIPS workshop 2021,
        arXiv:2207.12598, alg. 1.
    """

    def __init__(self, num_features: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.scale = nn.Parameter(torch.ones(1, num_features))
        self.shift = nn.Parameter(torch.zeros(1, num_features))

    def forward(self, condition: Condition, rows: Rows) -> tuple[Tensor, Tensor]:
        """Scale and shift, (N or 1, C) each: this row where the domain is missing, else ``rows``.

        Raises:
            ConditionError: Training without the domain of each sample, from ``rows``.
        """
        if not self.training:
            if condition.domain is None and condition.weights is None:
                return self.scale, self.shift
            scale, shift = rows(condition)
            if not condition.unseen:
                return scale, shift
            unknown = condition.unknown
            return torch.where(unknown, self.scale, scale), torch.where(unknown, self.shift, shift)
        scale, shift = rows(condition)
        chance = condition.chance
        if chance is None:  # a layer on its own, without a model that draws for all layers
            chance = torch.rand(scale.shape[0], device=scale.device)
        dropped = (chance < self.dropout)[:, None]
        return torch.where(dropped, self.scale, scale), torch.where(dropped, self.shift, shift)

    @torch.no_grad()
    def start(self, scale: Tensor, shift: Tensor) -> None:
        """The row becomes ``scale`` and ``shift`` (C,)."""
        self.scale.copy_(scale.expand_as(self.scale))
        self.shift.copy_(shift.expand_as(self.shift))

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f"dropout={self.dropout}"
