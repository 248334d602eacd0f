"""What domains own of a network: the tensors with a row for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from domainnorm.norms import ConditionalNorm
from domainnorm.norms.statistics.running import RunningMoments


class OwnedRows(NamedTuple):
    """A parameter or buffer (D, *) of a model.

    Args:
        key: Its name in the state of the model.
        owner: The module that has it.
        name: Its name there.
    """

    key: str
    owner: nn.Module
    name: str

    @property
    def tensor(self) -> Tensor:
        """The parameter or buffer itself."""
        tensor: Tensor = getattr(self.owner, self.name)
        return tensor


def owned_rows(network: nn.Module) -> Iterator[OwnedRows]:
    """The tensors of conditional norms with a row per domain, in definition order."""
    for path, norm in network.named_modules():
        if not isinstance(norm, ConditionalNorm):
            continue
        for name in norm.modulation.row_names:
            yield OwnedRows(f"{path}.modulation.{name}", norm.modulation, name)
        if isinstance(norm.statistics, RunningMoments) and norm.statistics.tracks_domains:
            for name in norm.statistics.row_names:
                yield OwnedRows(f"{path}.statistics.{name}", norm.statistics, name)
