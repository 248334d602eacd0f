"""Partition of a batch: which samples share moments, and sums over those of all ranks.

Gradients over ranks are those of the sum of all ranks' losses, as in SyncBatchNorm: every rank adds
what its samples say of the moments, and the average over ranks is left to DDP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from domainnorm.condition import Condition, out_of_range
from domainnorm.errors import ConditionError


class Blocks(NamedTuple):
    """Samples of one group that stand side by side, in the order of the batch; B of them.

    Args:
        lengths: Samples of each.
        labels: Group of each.
        group: The same as a tensor, (B,) int64.
        size: ``lengths``, one below the other, (B, 1) float64.
        block: Which block each sample is in, (N,) int64.
        whole: Whether every group is one block, as in a sorted batch.
        fewest: Samples of the smallest group that is present.
        seen: 1 for groups that are present, (K,) int64.
    """

    lengths: list[int]
    labels: list[int]
    group: Tensor
    size: Tensor
    block: Tensor
    whole: bool
    fewest: int
    seen: Tensor


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
        blocks: Where labels may be read without a synchronization; None elsewhere.
        turns: Where the parts are equal and labels may be read, as for ``blocks``; else None.
        on_ranks: Whether other ranks may hold samples of the groups.
    """

    group: Tensor | None
    num_groups: int
    size: Tensor
    blocks: Blocks | None = None
    turns: Turns | None = None
    on_ranks: bool = False
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

    def total_of_blocks(self, per_block: Tensor) -> Tensor:
        """(…, B, C) -> (…, K, C): sums over the blocks of each group."""
        assert self.blocks is not None
        return self._total(per_block, self.blocks.group)

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
    blocks = turns = None
    if not torch.compiler.is_compiling() and group.device.type == "cpu" and len(group):
        blocks = _find_blocks(group, size[:, 0].long())
        turns = _find_turns(group, num_groups, blocks)
    return Partition(group, num_groups, size, blocks, turns, several_ranks())


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


def _find_blocks(group: Tensor, samples: Tensor) -> Blocks:
    """Blocks of labels (N,), of which each group has ``samples`` (K,)."""
    labels, lengths = torch.unique_consecutive(group, return_counts=True)
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < len(samples):
            raise ConditionError(out_of_range(label, len(samples)))
    present = samples > 0
    return Blocks(
        lengths=lengths.tolist(),
        labels=labels.tolist(),
        group=labels,
        size=lengths[:, None].double(),
        block=torch.arange(len(lengths)).repeat_interleave(lengths),
        whole=len(labels) == int(present.sum()),
        fewest=int(samples[present].min()),
        seen=present.long(),
    )


def _find_turns(group: Tensor, num_groups: int, blocks: Blocks) -> Turns | None:
    equal = blocks.fewest * num_groups == len(group) and bool(blocks.seen.all())
    if num_groups < 2 or not equal:
        return None
    turn = torch.arange(num_groups)
    if torch.equal(group.view(-1, num_groups), turn.expand(blocks.fewest, -1)):
        return Turns(num_groups)
    order = group.argsort(stable=True).view(num_groups, -1).T.reshape(-1)
    return Turns(num_groups, order, order.argsort())


def by_row(rows: Tensor) -> dict[int, Tensor]:
    """Which samples (N,) bool are of each label among ``rows`` (N,), in ascending order."""
    return {row: rows == row for row in sorted(set(rows.tolist()))}


def several_ranks() -> bool:
    """Whether this process is one of several that train together."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_ranks(gradients[0])


def sum_over_ranks(local: Tensor) -> Tensor:
    """The sum of every rank's tensor, differentiable any number of times.

    All ranks must call it, in the same order, forward and backward.
    """
    total: Tensor = _SumOverRanks.apply(local)
    return total


def sums_over_ranks(*local: Tensor) -> tuple[Tensor, ...]:
    """`sum_over_ranks` of several tensors (K, *) in one call, side by side."""
    widths = [part.shape[1] for part in local]
    total = sum_over_ranks(torch.cat(local, dim=1))
    return torch.split(total, widths, dim=1)


def rows_of_ranks(local: Tensor) -> Tensor:
    """A row (1, *) of every rank, in their order, (ranks, *); no gradient flows."""
    rows = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
    distributed.all_gather(rows, local.contiguous())
    return torch.cat(rows)
