"""Layer of normalization: statistics × modulation, and what the two halves promise."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.norms.kernels.per_sample import accumulate_dtype, moments
from domainnorm.slot import ConditionSlot

S = TypeVar("S", bound="Statistics")


class Statistics(nn.Module, abc.ABC):
    """Which moments normalize a sample.

    Subclasses are called as ``Statistics(num_features, num_domains, **options)``; ``path`` is the
    module path of the layer they are in. ``tokens``: channels are the last axis of ``x``, not the
    second. ``takes_rows``: may be called with a pair per domain and ``rows=True``, which spares the
    arithmetic per sample. ``frozen``: stays in evaluation mode when the network goes to training.
    """

    path: str = ""
    tokens: bool = False
    takes_rows: bool = False
    frozen: bool = False

    def train(self: S, mode: bool = True) -> S:
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)

    @property
    def keeps_function(self) -> bool:
        """Whether evaluation equals the batch norm whose moments were given to `start`."""
        return False

    @property
    def tracks_domains(self) -> bool:
        """Whether there are running moments with a row per domain."""
        return False

    @property
    def mixes_domains(self) -> bool:
        """Whether in training the moments of a domain depend on the others in the batch."""
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
        self.unconditional: nn.Module | None = None

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


class ConditionalNorm(nn.Module):
    """Normalize with the moments of ``statistics``, scale and shift with those of ``modulation``.

    ``y[n] = scale[n] · (x[n] - mean[n]) / sqrt(var[n] + eps) + shift[n]``, then dropout and
    activation where the layer that this one replaces carried them.

    Args:
        statistics: Which moments normalize a sample; a module of `domainnorm.norms.statistics`.
        modulation: Where scale and shift come from; a module of `domainnorm.norms.modulations`.
        slot: Where the condition of the batch in flight is read; shared by all norms of a model.
        path: Module path in the model, for messages.
        num_features: C, which every input must have; None: whatever the halves take.

    A layer that sees tokens or windows of an image as consecutive rows has ``folded`` set; one that
    replaced a layer whose output is channels_last whatever its input has ``to_channels_last``, and
    one that takes maps (N, C, H, W) besides tokens ``maps_too``. The conversion finds that out.

    Shape:
        (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W) in, the same out, dtype and memory
        layout included; (N, L, C) or (N, H, W, C) where the statistics have ``tokens`` set.

    Raises:
        ConditionError: No condition is set, the layer sees other rows than images, or the input has
            another number of channels.
    """

    def __init__(
        self,
        statistics: Statistics,
        modulation: Modulation,
        slot: ConditionSlot | None = None,
        path: str = "norm",
        num_features: int | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.statistics = statistics
        self.modulation = modulation
        self.drop: nn.Module = nn.Identity()
        self.act: nn.Module = nn.Identity()
        self.slot = ConditionSlot() if slot is None else slot
        self.path = path
        statistics.path = modulation.path = path
        self.folded = False
        self.to_channels_last = False
        self.maps_too = False
        self._origin: tuple[nn.Module, ...] = ()

    @property
    def origin(self) -> nn.Module | None:
        """The layer that this one replaced; None where it replaced none.

        On the meta device where the new layer computes the same, with its values where it does not:
        they are what `domainnorm.calibrate` fits to.
        """
        return self._origin[0] if self._origin else None

    def remember(self, layer: nn.Module, values: bool = False) -> None:
        """Keep a copy of ``layer``, the replaced one, with its tensors' values or without."""
        origin = copy.deepcopy(layer)
        # In a tuple: a child would be in the state dict and follow .to().
        self._origin = (origin if values else origin.to("meta"),)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize one batch under the condition in the slot."""
        if self.maps_too and x.ndim == 4:
            return self._forward(x.movedim(1, -1)).movedim(-1, 1)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        slot, statistics = self.slot, self.statistics
        condition = slot.read(self.path, x.shape[0], self.folded)
        if condition.settle is not None:
            slot.settle(condition.settle(x.movedim(-1, 1) if statistics.tokens else x))
            condition = slot.read(self.path, x.shape[0], self.folded)
        if (recorded := slot.recorded) is not None:
            with torch.no_grad():
                recorded[self.path] = moments(x.movedim(-1, 1) if statistics.tokens else x)
        try:
            x = self._normalize(x, statistics, condition)
        except ConditionError as error:
            raise ConditionError(f"{self.path}: {error}") from error
        output: Tensor = self.act(self.drop(x))
        return output

    def _normalize(self, x: Tensor, statistics: Statistics, condition: Condition) -> Tensor:
        axis = x.ndim - 1 if statistics.tokens else 1
        if self.num_features is not None and (x.ndim < 2 or x.shape[axis] != self.num_features):
            raise self._wrong_features(x, axis)
        if self.to_channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        modulation = self.modulation
        if statistics.takes_rows and condition.domain is not None and not condition.unseen:
            table = modulation.table()
            if table is not None:
                by_rows: Tensor = statistics(x, *table, condition, rows=True)
                return by_rows
        scale, shift = modulation(condition, x)
        if scale.ndim == 2:
            normalized: Tensor = statistics(x, scale, shift, condition)
            return normalized
        one = torch.ones(1, x.shape[1], dtype=accumulate_dtype(x), device=x.device)
        normalized = statistics(x, one, torch.zeros_like(one), condition)
        return torch.addcmul(shift.to(x.dtype), normalized, scale.to(x.dtype))

    def _wrong_features(self, x: Tensor, axis: int) -> ConditionError:
        hint = ", or with tokens=True where channels are the last axis"
        if self.statistics.tokens:
            hint = ", or without tokens=True where channels are axis 1"
        return ConditionError(
            f"got features {tuple(x.shape)}, expected {self.num_features} channels in axis {axis}; "
            f"make the norm with the num_features of its input{hint}"
        )
