"""Condition dropout: a scale and shift for samples whose domain is not told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.errors import DomainNormError

Rows: TypeAlias = Callable[[Condition], tuple[Tensor, Tensor]]


class UnconditionalRow(nn.Module):
    """A learned row beside those of the domains, used where the domain is dropped or unknown.

    Training: a sample gets this row with probability ``dropout``, else its own. The model draws
    once per sample and batch (`Condition.chance`): all layers drop the same samples, so evaluation
    without a domain is a case that training has seen. Evaluation: only for conditions without
    domain and weights, and for samples of unseen domains.

    Args:
        num_features: C.
        dropout: Probability in (0, 1).

    Shape:
        ``scale``, ``shift``: (1, C), starting at 1 and 0.

    Raises:
        DomainNormError: A probability outside (0, 1).

    Reference:
        Ho and Salimans, Classifier-Free Diffusion Guidance, NeurIPS workshop 2021,
        arXiv:2207.12598, alg. 1.
    """

    def __init__(self, num_features: int, dropout: float) -> None:
        super().__init__()
        if not 0 < dropout < 1:
            raise DomainNormError(f"dropout: got {dropout}, expected a probability in [0, 1)")
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
