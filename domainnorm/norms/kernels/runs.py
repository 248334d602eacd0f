"""Batches whose groups are runs of samples: torch's own batch norm on each run.

A batch that is not sorted by group is sorted first, which costs two copies of x forward and three
backward: cheaper than arithmetic on rows for small maps. Nothing of x's size is kept beyond x.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from domainnorm.norms.kernels.partition import Partition, Runs
from domainnorm.norms.kernels.per_sample import combine, is_channels_last, like
from domainnorm.norms.kernels.pooled import Pool, gradients_of_rows

# From so many values on in channels_last, one pass over the gradient of all runs is faster than the
# kernel's passes over each, whose results have to be joined.
_JOINT_FROM = 400_000


class Tracked(NamedTuple):
    """Running moments that a batch moves.

    Args:
        mean: (K, C).
        var: (K, C).
        momentum: Weight of the batch.
        eps: Added to the variance.
    """

    mean: Tensor
    var: Tensor
    momentum: float
    eps: float


def normalize_runs(
    x: Tensor, scale: Tensor, shift: Tensor, groups: Partition, tracked: Tracked
) -> Tensor:
    """Batch norm of every group of samples with its own scale, shift and running moments.

    Args:
        x: (N, C, *); every group that is present has several values per channel.
        scale: (K, C), float64 for float64 input, else float32.
        shift: (K, C), likewise.
        groups: Has ``runs``.
        tracked: Moved in place for the groups that are present.
    """
    output: Tensor = _RunsNorm.apply(x, scale, shift, groups, tracked)
    return output


class _RunsNorm(torch.autograd.Function):
    """Writes runs of the output, the gradient and the rows' gradients with ``out=``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, groups: Partition, tracked: Tracked
    ) -> Tensor:
        runs = groups.runs
        assert runs is not None
        # The kernel with its out= takes strided input for contiguous, and is wrong.
        part = arranged(like(x, x), runs.order)
        output = torch.empty_like(part)
        moments = torch.empty(2, len(runs.labels), scale.shape[1], dtype=scale.dtype)
        for row, run, written, mean, rstd in zip(
            runs.labels, _split(part, runs), _split(output, runs), *moments.unbind(), strict=True
        ):
            torch.native_batch_norm(
                run,
                scale[row],
                shift[row],
                tracked.mean[row],
                tracked.var[row],
                True,
                tracked.momentum,
                tracked.eps,
                out=(written, mean, rstd),
            )
        ctx.save_for_backward(x, scale, shift, moments)
        ctx.groups, ctx.eps = groups, tracked.eps
        return arranged(output, runs.inverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, moments = ctx.saved_tensors
        groups: Partition = ctx.groups
        runs = groups.runs
        if torch.is_grad_enabled():  # create_graph=True: differentiate the plain formula instead
            given = (x, scale, shift)
            found = gradients_of_rows(gradients[0], given, groups, Pool(groups), ctx.eps)
            return (*found, None, None)
        assert runs is not None
        grad, part = (arranged(like(one, x), runs.order) for one in (gradients[0], x))
        joint = is_channels_last(x) and x.numel() >= _JOINT_FROM and x.dtype == scale.dtype
        # Not the variant with out=: it computes the same and copies it.
        backward = torch.ops.aten.native_batch_norm_backward.default
        fixed = (True, ctx.eps, [not joint, True, True])
        found = [
            backward(run_grad, run, scale[row], None, None, mean, rstd, *fixed)
            for row, mean, rstd, run_grad, run in zip(
                runs.labels, *moments.unbind(), _split(grad, runs), _split(part, runs), strict=True
            )
        ]
        dx, dscale, dshift = (list(parts) for parts in zip(*found, strict=True))
        rows = torch.stack(dscale), torch.stack(dshift)
        joined = _combined(grad, part, scale, rows, moments, runs) if joint else torch.cat(dx)
        return (
            arranged(joined, runs.inverse),
            *(_table(found_rows, runs, scale) for found_rows in rows),
            None,
            None,
        )


def _split(x: Tensor, runs: Runs) -> tuple[Tensor, ...]:
    return x.split_with_sizes(runs.lengths)


def _combined(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    rows: tuple[Tensor, Tensor],
    moments: Tensor,
    runs: Runs,
) -> Tensor:
    """The input's gradient for all runs at once, from their rows' gradients (R, C)."""
    dscale, dshift = rows
    mean, rstd = moments.double()
    share = scale.index_select(0, runs.rows) * rstd
    per_value = share / (runs.sizes * x.shape[2:].numel())
    slope = (per_value * rstd).mul_(dscale).neg_()
    offset = (per_value * dshift).addcmul_(slope, mean).neg_()
    of_runs = torch.stack([share, slope, offset]).to(x.dtype)
    return combine(grad, x, *of_runs.index_select(1, runs.run).unbind())


def _table(found: Tensor, runs: Runs, like_table: Tensor) -> Tensor:
    """Rows of the runs put where their groups are, zeros for absent ones, (K, C)."""
    if runs.labels == list(range(len(like_table))):
        return found
    return torch.zeros_like(like_table).index_copy_(0, runs.rows, found)


def arranged(x: Tensor, order: Tensor | None) -> Tensor:
    """Samples in another order, in x's memory layout."""
    if order is None:
        return x
    if not is_channels_last(x):
        return x.index_select(0, order)
    # Not a view of what is selected: activations change outputs of a Function in place.
    moved = torch.empty_like(x)
    torch.index_select(x.movedim(1, -1), 0, order, out=moved.movedim(1, -1))
    return moved
