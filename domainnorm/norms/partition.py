"""Which samples of a batch share moments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from domainnorm.condition import Condition


class Runs(NamedTuple):
    """Consecutive samples of equal group.

    Args:
        lengths: Samples of each of the R runs.
        labels: Group of each run.
        group: The same as a tensor, (R,) int64.
        samples: Lengths as a tensor, (R, 1) float.
        starts: First sample of each run, (R,) int64.
    """

    lengths: tuple[int, ...]
    labels: tuple[int, ...]
    group: Tensor
    samples: Tensor
    starts: Tensor


class Partition(NamedTuple):
    """Groups of samples.

    Args:
        group: Group of each sample, (N,) int64, in ``0..num_groups-1``; None: each is its own.
        num_groups: K.
        size: Samples of each group, (K, 1) float.
        runs: Where labels may be read without a synchronization, and the samples of a group lie
            together, as they do in batches of our sampler; None elsewhere.
    """

    group: Tensor | None
    num_groups: int
    size: Tensor
    runs: Runs | None = None

    def gather(self, *per_group: Tensor) -> tuple[Tensor, ...]:
        """(K, C) -> (N, C) each; the tensors are gathered together, in one call."""
        if self.group is None:
            return per_group
        rows = torch.cat(per_group, dim=1).index_select(0, self.group)
        return rows.chunk(len(per_group), dim=1)


def own_groups(num_samples: int, device: torch.device) -> Partition:
    """Every sample is a group of its own."""
    return Partition(None, num_samples, torch.ones(num_samples, 1, device=device))


def partition(group: Tensor, num_groups: int) -> Partition:
    """Groups of given labels (N,)."""
    ones = torch.ones(group.shape[0], 1, device=group.device)
    size = ones.new_zeros(num_groups, 1).index_add(0, group, ones)
    return Partition(group, num_groups, size, _find_runs(group, num_groups))


def by_domain(condition: Condition, domain: Tensor, num_domains: int) -> Partition:
    """Groups are domains; in eager mode found once per batch, not once per layer."""
    if torch.compiler.is_compiling():
        return partition(domain, num_domains)
    return condition.once(("partition", num_domains), lambda: partition(domain, num_domains))


def _find_runs(group: Tensor, num_groups: int) -> Runs | None:
    if torch.compiler.is_compiling() or group.device.type != "cpu":
        return None
    labels, lengths = torch.unique_consecutive(group, return_counts=True)
    if len(labels) > num_groups:
        return None
    samples = lengths[:, None].to(torch.float32)
    starts = lengths.cumsum(0) - lengths
    return Runs(tuple(lengths.tolist()), tuple(labels.tolist()), labels, samples, starts)
