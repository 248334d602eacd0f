"""Small batches with equal parts of every group: all groups in one call of torch's batch norm.

Once the groups take turns, 0, 1, …, K-1, 0, 1, …, a batch (N, C, *) of contiguous samples is,
without a copy, one of N / K samples with K·C channels: batch norm of it has the moments of each
group. In another order the batch is put into this one first, which costs what small maps can
afford. Nothing of x's size is kept beyond x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.norms.kernels.partition import Partition, Turns
from domainnorm.norms.kernels.pooled import Pool, gradients_of_rows
from domainnorm.norms.kernels.runs import Tracked, arranged


def normalize_turns(
    x: Tensor, scale: Tensor, shift: Tensor, groups: Partition, tracked: Tracked
) -> Tensor:
    """Batch norm of every group of samples with its own scale, shift and running moments.

    Args:
        x: (N, C, *), contiguous; every group has several values per channel.
        scale: (K, C), float64 for float64 input, else float32.
        shift: (K, C), likewise.
        groups: Has ``turns``.
        tracked: Moved in place.
    """
    output: Tensor = _TurnsNorm.apply(x, scale, shift, groups, tracked)
    return output


class _TurnsNorm(torch.autograd.Function):
    """One kernel forward, one backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, groups: Partition, tracked: Tracked
    ) -> Tensor:
        turns = groups.turns
        assert turns is not None
        part = arranged(x, turns.order)
        output = torch.empty_like(part)
        moments = torch.empty(2, scale.numel(), dtype=scale.dtype)
        torch.native_batch_norm(
            _wide(part, turns),
            scale.reshape(-1),
            shift.reshape(-1),
            tracked.mean.view(-1),
            tracked.var.view(-1),
            True,
            tracked.momentum,
            tracked.eps,
            out=(_wide(output, turns), moments[0], moments[1]),
        )
        ctx.save_for_backward(x, scale, shift, moments)
        ctx.groups, ctx.eps = groups, tracked.eps
        return arranged(output, turns.inverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, moments = ctx.saved_tensors
        groups: Partition = ctx.groups
        turns = groups.turns
        if torch.is_grad_enabled():  # create_graph=True: differentiate the plain formula instead
            given = (x, scale, shift)
            found = gradients_of_rows(gradients[0], given, groups, Pool(groups), ctx.eps)
            return (*found, None, None)
        assert turns is not None
        grad = arranged(gradients[0].contiguous(), turns.order)
        # Not the variant with out=: it computes the same and copies it.
        dx, dscale, dshift = torch.ops.aten.native_batch_norm_backward.default(
            _wide(grad, turns),
            _wide(arranged(x, turns.order), turns),
            scale.reshape(-1),
            None,
            None,
            moments[0],
            moments[1],
            True,
            ctx.eps,
            [True, True, True],
        )
        dx = arranged(dx.view(x.shape), turns.inverse)
        return dx, dscale.view(scale.shape), dshift.view(scale.shape), None, None


def _wide(x: Tensor, turns: Turns) -> Tensor:
    """(N, C, *) -> (N / K, K·C, L), a view."""
    return x.view(x.shape[0] // turns.num_groups, turns.num_groups * x.shape[1], -1)
