"""What the two halves of a norm promise."""

from __future__ import annotations

import abc
from collections.abc import Iterator

from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.norms.unconditional import UnconditionalRow


class Statistics(nn.Module, abc.ABC):
    """Which moments normalize a sample.

    Subclasses are called as ``Statistics(num_features, num_domains, **options)``; ``path`` is the
    module path of the layer they are in. ``tokens``: channels are the last axis of ``x``, not the
    second. ``takes_rows``: may be called with a pair per domain and ``rows=True``, which spares the
    arithmetic per sample.
    """

    path: str = ""
    tokens: bool = False
    takes_rows: bool = False

    @property
    def keeps_function(self) -> bool:
        """Whether evaluation equals the batch norm whose moments were given to `start`."""
        return False

    @property
    def tracks_domains(self) -> bool:
        """Whether there are running moments with a row per domain."""
        return False

    @abc.abstractmethod
    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` (N, C, *), then apply ``scale`` and ``shift``, (N or 1, C) each."""

    def start(self, mean: Tensor, var: Tensor, batches: Tensor | None) -> None:
        """Take over running moments (C,) of the layer that is replaced; nothing where none are."""


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
