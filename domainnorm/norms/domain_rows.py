"""What modulations that look their pair up by domain share."""

from __future__ import annotations

import abc

from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.norms.base import Modulation


class DomainRows(Modulation):
    """A pair for each domain, and one for samples of unknown domain where condition dropout is on.

    Subclasses set ``unconditional`` and say in `select` what a domain's pair is.
    """

    @property
    def by_domain(self) -> bool:
        """Whether all samples of a domain get one scale and shift."""
        return self.unconditional is None

    def forward(self, condition: Condition, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of each sample, (N, C) each; (1, C) for samples of unknown domain."""
        if self.unconditional is None:
            return self.select(condition)
        scale, shift = self.unconditional(condition, self.select)
        return scale, shift

    @abc.abstractmethod
    def select(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """The pair of each sample's domain, (N, C) each."""
