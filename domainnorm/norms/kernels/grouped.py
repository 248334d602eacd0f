"""Batch norm of samples that share moments, scale and shift: `pooled_norm` with less arithmetic.

Where scale and shift are functions of the domain, all that lies between the passes over x is
arithmetic on a few rows (R, C) instead of samples (N, C), and gradients of the rows come out of it
directly. With moments m, v (N, C) of samples, A the sum over the samples of a row, n (K, 1)
the values of a group and R = rsqrt(V + eps); groups are the rows (K = R), or all is one (K = 1)::

    M = A m / n,   V = A (v + m²) / n - M²
    y = x · s + t,   s = scale · R,   t = shift - M · s              # rows, then gathered
    dshift = A Σ dy,   dscale = (A Σ dy·x - M dshift) R
    p = -R² Σ scale·dscale / n,   q = -R Σ scale·dshift / n - p M    # sums over the rows of a group
    dx = s · dy + p · x + q

Where a kernel is called for each sample, neighbours of one row share a call: A sums over such
stretches then, of moments times their samples. Rows are float64: in float32 a difference of second
moments would lose everything, and neither autocast nor matrix products of reduced precision touch
float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from domainnorm.norms.kernels.collectives import sum_over_ranks, sums_over_ranks
from domainnorm.norms.kernels.partition import Counts, Partition, Stretches, counts
from domainnorm.norms.kernels.per_sample import (
    accumulate_dtype,
    affine,
    combine,
    dots,
    moments,
    way_of,
)
from domainnorm.norms.kernels.pooled import Pool, gradients_of_rows


class Grouping(NamedTuple):
    """Which samples share scale and shift, and which share moments.

    Args:
        rows: Row of each sample.
        groups: ``rows`` itself, or one group of all samples.
        sync: Groups go on over the ranks of the default process group; all ranks must call.
    """

    rows: Partition
    groups: Partition
    sync: bool = False


def grouped_norm(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    grouping: Grouping,
    eps: float,
    track: Callable[[Tensor, Tensor, Counts], None],
) -> Tensor:
    """Normalize every sample with the moments of its group; scale and shift are those of its row.

    Args:
        x: (N, C, *) of several pixels, any floating dtype.
        scale: (R, C).
        shift: (R, C).
        grouping: Rows and groups of samples.
        eps: Added to the variance.
        track: Called once with the groups' means and biased variances, (K, C) float64 and zero for
            an empty group, and their counts.

    Returns:
        Shape, dtype and layout of the input.
    """
    output: Tensor = _GroupedNorm.apply(x, scale, shift, grouping, eps, track)
    return output


class _GroupedNorm(torch.autograd.Function):
    """See the module's docstring for the formulas."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        grouping: Grouping,
        eps: float,
        track: Callable[[Tensor, Tensor, Counts], None],
    ) -> Tensor:
        mean, var, known = _group_moments(x, grouping)
        track(mean, var, known)
        rstd = var.add_(eps).rsqrt_()
        s = scale * rstd
        t = torch.addcmul(shift, mean, s, value=-1)
        output = affine(x, *_of_samples(torch.stack([s, t]), grouping, x))
        ctx.save_for_backward(x, scale, shift, mean, rstd, known.divisor)
        ctx.grouping, ctx.eps = grouping, eps
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, mean, rstd, values = ctx.saved_tensors
        grouping: Grouping = ctx.grouping
        if torch.is_grad_enabled():  # create_graph=True: differentiate the plain formula instead
            pool = Pool(grouping.groups, sync=grouping.sync)
            found = gradients_of_rows(grad, (x, scale, shift), grouping.rows, pool, ctx.eps)
            return (*found, None, None, None)
        sums = _row_sums(grad, x, grouping.rows)
        dshift, dscale = sums.unbind()
        dscale.addcmul_(mean, dshift, value=-1).mul_(rstd)
        dx = None
        if ctx.needs_input_grad[0]:
            first, second = _over_groups(sums * scale, grouping).unbind()
            s = scale * rstd
            share = rstd / -values
            p = (share * rstd).mul_(second)
            q = (share * first).addcmul_(p, mean, value=-1)
            rows = torch.stack([s, p.expand_as(s), q.expand_as(s)])
            dx = combine(grad, x, *_of_samples(rows, grouping, x))
        return dx, dscale.to(scale.dtype), dshift.to(shift.dtype), None, None, None


def _group_moments(x: Tensor, grouping: Grouping) -> tuple[Tensor, Tensor, Counts]:
    """Mean and biased variance (K, C) of groups, float64, and their counts."""
    groups, pixels = grouping.groups, x.shape[2:].numel()
    stretches = _stretches(x, grouping.rows)
    own = torch.stack(moments(x, stretches and stretches.lengths)).double()  # (2, N or S, C)
    mean, second = own.unbind()
    second.addcmul_(mean, mean)
    if stretches is None:
        total = groups.total(own)
    elif groups is grouping.rows:
        total = groups.total_of_stretches(own.mul_(stretches.size))
    else:
        total = own.mul_(stretches.size).sum(1, keepdim=True)
    if grouping.sync:
        local = groups.size.double()
        first, second, values = sums_over_ranks(*(part * pixels for part in (*total, local)))
        known = counts(values)
        mean, second = first / known.divisor, second / known.divisor
    else:
        known = groups.counts(pixels)
        mean, second = total.div_(groups.counts(1).divisor).unbind()
    return mean, second.addcmul_(mean, mean, value=-1).clamp_min_(0), known


def _stretches(x: Tensor, rows: Partition) -> Stretches | None:
    """What moments and sums of ``x`` are taken of, None: samples."""
    return rows.stretches if way_of(x) == "slices" else None


def _row_sums(grad: Tensor, x: Tensor, rows: Partition) -> Tensor:
    """``Σ grad`` and ``Σ grad · x`` over the samples of each row, (2, R, C) float64."""
    stretches = _stretches(x, rows)
    if stretches is None:
        return rows.total(torch.stack(dots(grad, x)).double())
    return rows.total_of_stretches(torch.stack(dots(grad, x, stretches.lengths)).double())


def _over_groups(per_row: Tensor, grouping: Grouping) -> Tensor:
    """(2, R, C) -> (2, K, C): sums over the rows of each group."""
    if grouping.groups is not grouping.rows:
        per_row = per_row.sum(1, keepdim=True)
    return sum_over_ranks(per_row) if grouping.sync else per_row


def _of_samples(rows: Tensor, grouping: Grouping, x: Tensor) -> tuple[Tensor, ...]:
    """(P, R, C) float64 -> P times (N, C) in the dtype that statistics of ``x`` have."""
    assert grouping.rows.group is not None
    return rows.to(accumulate_dtype(x)).index_select(1, grouping.rows.group).unbind()
