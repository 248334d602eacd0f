"""Running moments that are estimated again, or kept from moving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from domainnorm.backbones import DomainModel, MomentEstimator
from domainnorm.condition import Pair
from domainnorm.methods.base import Batch
from domainnorm.norms.kernels.partition import rows_of_ranks, several_ranks
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.slot import channel_divergence


class MomentPass:
    """One pass of batches through a model, for the moments of their images.

    Training batches are all of one size and equal parts of each domain, so some images of a pass
    come again to fill them. Those count once here.

    Args:
        model: Its running moments are estimated.
    """

    def __init__(self, model: DomainModel) -> None:
        self._model = model
        self._estimator = MomentEstimator(model)
        self._seen: set[int] = set()

    def observe(self, batch: Batch) -> None:
        """Add the images of a batch that did not come before.

        All of the batch goes through the model: its statistics normalize the layers on the way.
        """
        domain = batch["domain"]
        # Loaders of one's own that number no image repeat none.
        fresh = self._fresh(batch["index"]) if "index" in batch else torch.ones_like(domain) > 0
        # Whether or not any is fresh: layers may wait for those of other ranks.
        with self._estimator.observing(fresh):
            embedding = self._model.embedding_of(batch)
            self._model(batch["image"], batch["domain"], embedding=embedding)

    def _fresh(self, index: Tensor) -> Tensor:
        """Which images of this rank's batch (N,) came neither before nor on a rank before it."""
        of_ranks = rows_of_ranks(index[None]) if several_ranks() else index[None]
        fresh: list[list[bool]] = []
        for row in of_ranks.tolist():
            fresh.append([])
            for position in row:
                fresh[-1].append(position not in self._seen)
                self._seen.add(position)
        own = distributed.get_rank() if several_ranks() else 0
        return torch.tensor(fresh[own], device=index.device)

    def write(self) -> None:
        """Put the pooled moments into the rows of the domains that were seen."""
        self._estimator.write()


def estimate_moments(model: DomainModel, batches: Iterable[Batch]) -> None:
    """Moments of all these images, each counted once, for the rows of their domains."""
    moments = MomentPass(model)
    for batch in batches:
        moments.observe(batch)
    moments.write()


Share: TypeAlias = float | Literal["unlike", "layers"]


def between(old: Pair, new: Pair, share: Share, eps: float, least: float = 0.0) -> Pair:
    """Moments with a share of the new ones, (..., C) each.

    Args:
        old: Mean and variance.
        new: The same, of equal shape.
        share: Weight of the new moments, in [0, 1]. ``unlike``: each channel has ``d / (1 + d)``, d
            being the symmetric Kullback-Leibler divergence of both (see `channel_divergence`).
            ``layers``: all channels have ``m² / (1 + m²)``, m being the median of their d.
        eps: Added to variances in d.
        least: Least weight for ``unlike`` and ``layers``, in [0, 1].
    """
    weight = torch.zeros_like(old[0])
    if isinstance(share, str):
        distance = channel_divergence(old, new, eps)
        if share == "layers":
            distance = distance.median(-1, keepdim=True).values.square()
        weight = (distance / (1 + distance)).clamp(min=least).expand_as(weight)
    else:
        weight.fill_(share)
    mean, var = (torch.lerp(one, other, weight) for one, other in zip(old, new, strict=True))
    return mean, var


class MomentsBefore:
    """Running moments of norms before re-estimation, to be mixed with the new ones.

    Args:
        moves: Statistics of norms, and whether their moments move at all.
    """

    def __init__(self, moves: Mapping[RunningMoments, bool]) -> None:
        self._moves = dict(moves)
        self._before = [(one.running_mean.clone(), one.running_var.clone()) for one in moves]

    @torch.no_grad()
    def blend(self, share: Share, least: float = 0.0) -> None:
        """Norms whose moments move get a share of those they have now, others have the old ones."""
        for (statistics, moves), old in zip(self._moves.items(), self._before, strict=True):
            found = statistics.running_mean, statistics.running_var
            wanted = between(old, found, share, statistics.eps, least) if moves else old
            for running, moment in zip(found, wanted, strict=True):
                running.copy_(moment)


def move_rows(model: DomainModel, batches: Iterable[Batch], share: Share, least: float) -> None:
    """Rows of the domains of these images get a share of the moments of these; see `between`.

    Norms whose moments are of all domains keep them.
    """
    before = MomentsBefore({one: one.tracks_domains for one in tracked_statistics(model)})
    estimate_moments(model, batches)
    before.blend(share, least)


def tracked_statistics(model: DomainModel) -> list[RunningMoments]:
    """Statistics with running moments, of all norms, in the order of the network."""
    found = (norm.statistics for norm in model.norms())
    return [one for one in found if isinstance(one, RunningMoments)]


def moment_buffers(model: DomainModel) -> list[Tensor]:
    """What a pass in training moves: running moments, and their counts, of all norms."""
    layers: list[nn.Module] = [norm.statistics for norm in model.norms()]
    layers += [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [buffer for layer in layers for buffer in layer.buffers()]


def use_batch_statistics(model: DomainModel) -> None:
    """Evaluation mode, dropout and stochastic depth off, but norms normalize by their batches."""
    model.eval()
    for norm in model.norms():
        norm.statistics.train()


@contextmanager
def kept_moments(model: DomainModel, rows: Sequence[int] | None = None) -> Iterator[None]:
    """Inside the block running moments do not move: mixed images, say, belong to no domain.

    Layers still normalize with the moments of their batches in training.

    Args:
        model: Its norms.
        rows: Labels of the domains whose moments stay, where a norm has a row for each; moments of
            other domains move, and such as are of all domains. All stay when None.
    """
    kept = moment_buffers(model)
    if rows is not None:
        kept = [buffer[row] for buffer in own_moments(model) for row in rows]
    with _kept(kept):
        yield


@contextmanager
def kept_but(model: DomainModel, rows: Sequence[int]) -> Iterator[None]:
    """Inside the block running moments move of these domains alone, where they have their own."""
    own = own_moments(model)
    moved = set(map(id, own))
    common = [buffer for buffer in moment_buffers(model) if id(buffer) not in moved]
    others = [row for row in range(model.num_domains) if row not in rows]
    with _kept([*common, *(buffer[row] for buffer in own for row in others)]):
        yield


def own_moments(model: DomainModel) -> list[Tensor]:
    """Running moments with a row for each domain, of its images alone, and their counts."""
    tracking = [norm.statistics for norm in model.norms()]
    own = [one for one in tracking if one.tracks_domains and not one.mixes_domains]
    return [buffer for statistics in own for buffer in statistics.buffers()]


@contextmanager
def _kept(buffers: Sequence[Tensor]) -> Iterator[None]:
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            # As torch's own kernel moves them: backward does not read what it has kept.
            buffer.data.copy_(value)
