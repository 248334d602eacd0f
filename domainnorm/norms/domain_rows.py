"""What modulations that look their pair up by domain share."""

from __future__ import annotations

import abc

from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.norms.base import Modulation


class DomainRows(Modulation):
    """A pair for each domain, and one for samples of unknown domain where condition dropout is on.

    Subclasses set ``unconditional`` and say in `all_rows` what the domains' pairs are.
    """

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
