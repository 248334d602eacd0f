"""Which samples of a batch share moments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from domainnorm.condition import Condition, out_of_range
from domainnorm.errors import ConditionError


class Runs(NamedTuple):
    """Groups that are present, each a run of consecutive samples once the batch is sorted.

    Args:
        lengths: Samples of each run.
        labels: Group of each run.
        rows: The same as a tensor, int64.
        sizes: ``lengths``, one below the other, float64.
        run: Which run each sample of the sorted batch is in, (N,) int64.
        shortest: Samples of the shortest run.
        seen: 1 for groups that are present, (K,) int64.
        order: Samples in the order of the runs, (N,) int64; None where they are in it.
        inverse: The way back, likewise.
    """

    lengths: list[int]
    labels: list[int]
    rows: Tensor
    sizes: Tensor
    run: Tensor
    shortest: int
    seen: Tensor
    order: Tensor | None = None
    inverse: Tensor | None = None


class Stretches(NamedTuple):
    """Samples of one group that stand side by side, in the order of the batch; S of them.

    Args:
        lengths: Samples of each.
        group: Group of each, (S,) int64.
        size: ``lengths``, one below the other, (S, 1) float64.
    """

    lengths: list[int]
    group: Tensor
    size: Tensor


class Turns(NamedTuple):
    """Groups that are all present in equal parts, and how they take turns (0, 1, …, K-1, 0, 1, …).

    Args:
        num_groups: K.
        order: Samples in that order, (N,) int64; None where they are in it.
        inverse: The way back, likewise.
    """

    num_groups: int
    order: Tensor | None = None
    inverse: Tensor | None = None


class Counts(NamedTuple):
    """What follows from the number of values per channel in each group, (K, 1) each.

    Args:
        divisor: That number, 1 for an empty group; float64.
        unbiased: ``n / (n - 1)``, what makes a biased variance unbiased; float64.
        seen: 1 for groups of several values, whose variance is known, else 0; float32.
        steps: The same, (K,) int64.
    """

    divisor: Tensor
    unbiased: Tensor
    seen: Tensor
    steps: Tensor


def counts(values: Tensor) -> Counts:
    """`Counts` of given values per group, (K, 1)."""
    values = values.double()
    several = values > 1
    unbiased = values / (values - 1).clamp(min=1)
    return Counts(values.clamp(min=1), unbiased, several.float(), several[:, 0].long())


@dataclass(frozen=True)
class Partition:
    """Groups of samples.

    Args:
        group: Group of each sample, (N,) int64, in ``0..num_groups-1``; None: each is its own.
        num_groups: K.
        size: Samples of each group, (K, 1) float.
        runs: Where labels may be read without a synchronization; None elsewhere.
        stretches: Likewise.
        turns: Where the parts are equal and labels may be read, as for ``runs``; else None.
    """

    group: Tensor | None
    num_groups: int
    size: Tensor
    runs: Runs | None = None
    stretches: Stretches | None = None
    turns: Turns | None = None
    _counts: dict[int, Counts] = field(default_factory=dict, repr=False, compare=False)

    def gather(self, *per_group: Tensor) -> tuple[Tensor, ...]:
        """(K, C) -> (N, C) each; the tensors are gathered together, in one call."""
        if self.group is None:
            return per_group
        return torch.stack(per_group).index_select(1, self.group).unbind()

    def total(self, per_sample: Tensor) -> Tensor:
        """(…, N, C) -> (…, K, C): sums over the samples of each group; differentiable.

        Scattered, not a product with their membership: 0 · inf of one sample would reach the other
        groups.
        """
        return per_sample if self.group is None else self._total(per_sample, self.group)

    def total_of_stretches(self, per_stretch: Tensor) -> Tensor:
        """(…, S, C) -> (…, K, C): sums over the stretches of each group."""
        assert self.stretches is not None
        return self._total(per_stretch, self.stretches.group)

    def _total(self, parts: Tensor, group: Tensor) -> Tensor:
        *axes, _, num_features = parts.shape
        empty = parts.new_zeros(*axes, self.num_groups, num_features)
        return empty.index_add_(-2, group, parts)

    def counts(self, pixels: int) -> Counts:
        """Values of each group when a sample has ``pixels`` of them; computed once."""
        if torch.compiler.is_compiling():
            return counts(self.size * pixels)
        if pixels not in self._counts:
            with torch.inference_mode(False), torch.no_grad():
                self._counts[pixels] = counts(self.size * pixels)
        return self._counts[pixels]


def own_groups(num_samples: int, device: torch.device) -> Partition:
    """Every sample is a group of its own."""
    return Partition(None, num_samples, torch.ones(num_samples, 1, device=device))


def partition(group: Tensor, num_groups: int) -> Partition:
    """Groups of given labels (N,)."""
    labels = torch.arange(num_groups, device=group.device)
    member = group == labels[:, None]  # (K, N)
    size = member.sum(1, keepdim=True).float()
    if torch.compiler.is_compiling() or group.device.type != "cpu" or len(group) == 0:
        return Partition(group, num_groups, size)
    stretches = _find_stretches(group, num_groups)
    runs = _find_runs(group, num_groups, stretches)
    turns = _find_turns(group, num_groups, runs)
    return Partition(group, num_groups, size, runs, stretches, turns)


def by_domain(condition: Condition, domain: Tensor, num_domains: int) -> Partition:
    """Groups are domains; in eager mode found once per batch, not once per layer."""
    if torch.compiler.is_compiling():
        return partition(domain, num_domains)
    return condition.once(("partition", num_domains), lambda: partition(domain, num_domains))


def whole_batch(condition: Condition, num_samples: int, device: torch.device) -> Partition:
    """All samples are one group."""

    def derive() -> Partition:
        return partition(torch.zeros(num_samples, dtype=torch.long, device=device), 1)

    if torch.compiler.is_compiling():
        return derive()
    return condition.once(("whole batch", num_samples, device), derive)


def _find_stretches(group: Tensor, num_groups: int) -> Stretches:
    labels, lengths = torch.unique_consecutive(group, return_counts=True)
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < num_groups:
            raise ConditionError(out_of_range(label, num_groups))
    return Stretches(lengths.tolist(), labels, lengths[:, None].double())


def _find_runs(group: Tensor, num_groups: int, stretches: Stretches) -> Runs:
    labels, lengths = stretches.group, stretches.size[:, 0].long()
    order = inverse = None
    if len(set(labels.tolist())) < len(labels):
        order = group.argsort(stable=True)
        inverse = order.argsort()
        labels, lengths = torch.unique_consecutive(group[order], return_counts=True)
    seen = torch.zeros(num_groups, dtype=torch.long).index_fill_(0, labels, 1)
    found, run = lengths.tolist(), torch.arange(len(lengths)).repeat_interleave(lengths)
    sizes = lengths[:, None].double()
    return Runs(found, labels.tolist(), labels, sizes, run, min(found), seen, order, inverse)


def _find_turns(group: Tensor, num_groups: int, runs: Runs) -> Turns | None:
    if num_groups < 2 or runs.lengths != [runs.shortest] * num_groups:
        return None
    turn = torch.arange(num_groups, device=group.device)
    if torch.equal(group.view(-1, num_groups), turn.expand(runs.shortest, -1)):
        return Turns(num_groups)
    order = group.argsort(stable=True).view(num_groups, -1).T.reshape(-1)
    return Turns(num_groups, order, order.argsort())
