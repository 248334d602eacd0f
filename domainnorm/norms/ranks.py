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
