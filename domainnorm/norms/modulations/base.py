"""Modulations: what they promise, and what those that look their pair up by domain share."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.errors import DomainNormError

Rows: TypeAlias = Callable[[Condition], tuple[Tensor, Tensor]]


class Modulation(nn.Module, abc.ABC):
    """Where the scale and shift of a sample come from.

    Subclasses are called as ``Modulation(num_features, num_domains, **options)``; ``path`` is the
    module path of the layer they are in. ``row_names`` are the parameters with a row per domain,
    (D, *); a shape alone does not tell, (4, C) may as well be a basis of rank 4.
    ``keeps_function`` tells whether samples get the pair that was given to `start`; ``needs`` is
    the keyword of `DomainModel.forward` that a domain alone does not replace, or empty.
    ``embedding_size``: E of the embeddings it takes, None where it takes none.
    """

    path: str = ""
    row_names: tuple[str, ...] = ()
    embedding_size: int | None = None
    keeps_function: bool = True
    needs: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.unconditional: UnconditionalRow | None = None

    @abc.abstractmethod
    def forward(self, condition: Condition, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of the samples of ``x``: (N or 1, C) each, or (N, C, *) per pixel."""

    @abc.abstractmethod
    def start(self, scale: Tensor, shift: Tensor) -> None:
        """Make every sample get ``scale`` and ``shift`` (C,), those of the layer it replaces."""

    def table(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift of the domains, (D or 1, C) each, if a sample's pair is its domain's."""
        return None

    def rows(self) -> Iterator[nn.Parameter]:
        """The parameters with a row per domain, (D, *) each."""
        for name in self.row_names:
            yield self.get_parameter(name)


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
