"""What domains own of a network: the tensors with a row for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from domainnorm.encoders import DomainEncoder
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

    @property
    def bytes(self) -> int:
        """What a row of parameters or running moments takes; 0 of a counter."""
        row = self.tensor[0]
        return row.numel() * row.element_size() if row.is_floating_point() else 0


def owned_rows(network: nn.Module, *, aliases: bool = False) -> Iterator[OwnedRows]:
    """The tensors of conditional norms with a row per domain, in definition order.

    ``aliases``: those of a norm in several places under each of their names.
    """
    for path, norm in network.named_modules(remove_duplicate=not aliases):
        if not isinstance(norm, ConditionalNorm):
            continue
        for name in norm.modulation.row_names:
            yield OwnedRows(f"{path}.modulation.{name}", norm.modulation, name)
        if isinstance(norm.statistics, RunningMoments) and norm.statistics.tracks_domains:
            for name in norm.statistics.row_names:
                yield OwnedRows(f"{path}.statistics.{name}", norm.statistics, name)


def encoder_rows(encoder: DomainEncoder | None) -> list[OwnedRows]:
    """The tensors in which a model's encoder has a row per domain; none without an encoder."""
    if encoder is None:
        return []
    gaussians = encoder.gaussians
    return [OwnedRows(f"encoder.gaussians.{name}", gaussians, name) for name in gaussians.row_names]
