"""Moments and gradients of groups whose samples are spread over the ranks of a process group.

Gradients are those of the sum of all ranks' losses, as in SyncBatchNorm: every rank adds what its
samples say of the moments, and the average over ranks is left to DDP.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


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
