"""Moments pooled over groups of samples: the one core of instance, domain and batch statistics.

Sample n is normalized with the moments of its group k[n]: itself (instance), its domain, or the
whole batch. With moments m, v (N, C) of samples, M, V (K, C) of groups, R = rsqrt(V + eps)::

    M = avg_k m,   V = avg_k (v + (m - M[k])²)
    y = x · s + t,   s = scale · R[k],   t = shift - M[k] · s
    dx = s · dy + p · x + q,   q = -R[k] G1[k] - p M[k],   p = -R[k]² G2[k]
    dshift = Σ dy,   dscale = (Σ dy·x - M[k] dshift) R[k]
    G1, G2 = group sums of scale·dshift and scale·dscale over the values in the group

Two passes over x forward, two backward, and nothing of x's size is kept beyond x itself. With a
stride, moments are those of every k-th pixel along each axis, n values of them; G1 and G2 are still
sums over all pixels, and p · x + q reaches the sampled ones alone.

Where scale and shift are functions of the domain, `grouped_norm` does all that lies between the
passes over x on a few rows (R, C) instead of samples (N, C), and gradients of the rows come out of
it directly. With A the sum over the samples of a row and n (K, 1) the values of a group; groups are
the rows (K = R), or all is one (K = 1)::

    M = A m / n,   V = A (v + m²) / n - M²
    y = x · s + t,   s = scale · R,   t = shift - M · s              # rows, then gathered
    dshift = A Σ dy,   dscale = (A Σ dy·x - M dshift) R
    p = -R² Σ scale·dscale / n,   q = -R Σ scale·dshift / n - p M    # sums over the rows of a group
    dx = s · dy + p · x + q

Where a kernel is called for each sample, neighbours of one row share a call: A sums over such
blocks then, of moments times their samples. Rows are float64: in float32 a difference of second
moments would lose everything, and neither autocast nor matrix products of reduced precision touch
float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from domainnorm.norms.kernels.partition import (
    Blocks,
    Counts,
    Partition,
    counts,
    sum_over_ranks,
    sums_over_ranks,
)
from domainnorm.norms.kernels.per_sample import (
    accumulate_dtype,
    affine,
    combine,
    dots,
    like,
    moments,
    spread,
    strided,
    subsample,
    way_of,
)


class Pool(NamedTuple):
    """Which samples and pixels share moments.

    Args:
        groups: Groups of samples.
        fallback_mean: (K, C), used by a group that holds a single value per channel, whose
            variance would be zero; None: such a group is normalized to its shift.
        fallback_var: (K, C), as above.
        stride: Moments are those of every ``stride``-th pixel along each axis.
        sync: Groups go on over the ranks of the default process group; all ranks must call.
    """

    groups: Partition
    fallback_mean: Tensor | None = None
    fallback_var: Tensor | None = None
    stride: int = 1
    sync: bool = False


class Pooled(NamedTuple):
    """What `pooled_norm` returns.

    Args:
        output: Shape, dtype and layout of the input.
        mean: Of each group, (K, C); zero for an empty group.
        var: Biased, likewise.
        values: Values per channel in each group, (K, 1).
    """

    output: Tensor
    mean: Tensor
    var: Tensor
    values: Tensor


def pooled_norm(x: Tensor, scale: Tensor, shift: Tensor, pool: Pool, eps: float) -> Pooled:
    """Normalize every sample with the moments of its group, then scale and shift it.

    ``y[n] = scale[n] · (x[n] - M[k[n]]) / sqrt(V[k[n]] + eps) + shift[n]``; gradients flow through
    the moments to all samples of the group.

    Args:
        x: (N, C, *), any floating dtype; statistics are computed in float32 or wider.
        scale: (N, C).
        shift: (N, C).
        pool: Groups of samples.
        eps: Added to the variance.

    Reference:
        Ioffe and Szegedy, ICML 2015, arXiv:1502.03167 (gradient); Chang et al., CVPR 2019,
        arXiv:1906.03950, eq. 2 (groups = domains).
    """
    # The fused path is opaque to tracing; the plain one is what a compiler fuses by itself.
    if torch.compiler.is_compiling():
        return plain_pooled_norm(x, scale, shift, pool, eps)
    return Pooled(*_PooledNorm.apply(x, scale, shift, pool, eps))


def plain_pooled_norm(x: Tensor, scale: Tensor, shift: Tensor, pool: Pool, eps: float) -> Pooled:
    """`pooled_norm` in plain differentiable operations: for compilers and double backward."""
    axes = tuple(range(2, x.ndim))
    wide = x.to(accumulate_dtype(x))
    sampled = subsample(wide, pool.stride)
    mean = sampled.mean(axes) if axes else wide
    var = sampled.var(axes, unbiased=False) if axes else torch.zeros_like(wide)
    mean, var, values = _pool((mean, var), sampled.shape[2:].numel(), pool)
    rstd, mean_of_sample = pool.groups.gather(torch.rsqrt(var + eps), mean)
    s = scale * rstd
    t = shift - mean_of_sample * s
    output = (wide * spread(s, x) + spread(t, x)).to(x.dtype)
    return Pooled(output, mean.detach(), var.detach(), values)


def gradients_of_rows(
    grad: Tensor, inputs: tuple[Tensor, Tensor, Tensor], rows: Partition, pool: Pool, eps: float
) -> list[Tensor | None]:
    """`graph_gradients` of the plain formula for x, and scale and shift of ``rows``, (R, C)."""
    x, *tables = inputs
    assert rows.group is not None
    with torch.enable_grad():
        scale, shift = (table.index_select(0, rows.group) for table in tables)
        output = plain_pooled_norm(x, scale, shift, pool, eps).output
    return graph_gradients(output, inputs, grad)


def graph_gradients(output: Tensor, inputs: Sequence[Tensor], grad: Tensor) -> list[Tensor | None]:
    """Gradients that can be differentiated again, None for inputs that need none."""
    needed = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(output, needed, grad, create_graph=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]


def _pool(own: tuple[Tensor, Tensor], size: int, pool: Pool) -> tuple[Tensor, Tensor, Tensor]:
    """Moments of groups (K, C) and their values (K, 1), from samples of ``size`` pixels."""
    groups, values = pool.groups, pool.groups.size * size
    if groups.group is None:
        return *own, values
    total = groups.total(own[0])
    if pool.sync:
        total, values = sums_over_ranks(total * size, values.to(total.dtype))
        values = values.detach()
    divisor = (values if pool.sync else groups.size).clamp(min=1)
    mean = total / divisor
    apart = own[0] - mean.index_select(0, groups.group)
    total = groups.total(own[1] + apart * apart)
    if pool.sync:
        total = sum_over_ranks(total * size)
    var = total / divisor
    if size == 1 and pool.fallback_mean is not None and pool.fallback_var is not None:
        lone = values == 1
        mean = torch.where(lone, pool.fallback_mean.to(mean.dtype), mean)
        var = torch.where(lone, pool.fallback_var.to(mean.dtype), var)
    return mean, var, values


class _PooledNorm(torch.autograd.Function):
    """The fused path; see the module's docstring for the formulas."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, pool: Pool, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sampled, groups = subsample(x, pool.stride), pool.groups
        size = sampled.shape[2:].numel()
        mean, var, values = _pool(moments(sampled), size, pool)
        rstd = torch.rsqrt(var + eps)
        row_rstd, row_mean = groups.gather(rstd, mean)
        s = scale * row_rstd
        t = torch.addcmul(shift.to(s.dtype), row_mean, s, value=-1)
        output = affine(x, s, t)
        ctx.save_for_backward(x, scale, shift, mean, rstd, values)
        ctx.pool, ctx.eps = pool, eps
        ctx.mark_non_differentiable(mean, var, values)
        return output, mean, var, values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad = gradients[0]
        x, scale, shift, mean, rstd, values = ctx.saved_tensors
        pool: Pool = ctx.pool
        if torch.is_grad_enabled():  # create_graph=True: differentiate the plain formula instead
            with torch.enable_grad():
                output = plain_pooled_norm(x, scale, shift, pool, ctx.eps).output
            return (*graph_gradients(output, (x, scale, shift), grad), None, None)
        dshift, product = dots(grad, x)
        row_rstd, row_mean = pool.groups.gather(rstd, mean)
        dscale = torch.addcmul(product, row_mean, dshift, value=-1).mul_(row_rstd)
        dx = None
        if ctx.needs_input_grad[0]:
            size = strided(x, pool.stride).shape[2:].numel()
            p, q = _slopes(scale * dshift, scale * dscale, (mean, rstd, values), pool, size)
            dx = _input_gradient(grad, x, scale * row_rstd, (p, q), pool.stride)
        return dx, dscale.to(scale.dtype), dshift.to(shift.dtype), None, None


def _slopes(
    first: Tensor, second: Tensor, saved: tuple[Tensor, Tensor, Tensor], pool: Pool, size: int
) -> tuple[Tensor, Tensor]:
    """P and q of each sample, (N, C), from its terms of G1 and G2."""
    mean, rstd, values = saved
    groups = pool.groups
    first = groups.total(first)
    second = groups.total(second)
    if pool.sync:
        first, second = sums_over_ranks(first, second)
    share = rstd / values.clamp(min=1)
    if size == 1 and pool.fallback_mean is not None:  # moments that were not those of the batch
        share = share.masked_fill(values == 1, 0.0)
    p = (share * rstd).mul_(second).neg_()
    q = torch.addcmul(share * first, p, mean).neg_()
    p, q = groups.gather(p, q)
    return p, q


def _input_gradient(
    grad: Tensor, x: Tensor, scale: Tensor, slopes: tuple[Tensor, Tensor], stride: int
) -> Tensor:
    if stride == 1:
        return combine(grad, x, scale, *slopes)
    dx = affine(like(grad, x), scale, torch.zeros_like(scale))
    at_pixels = combine(subsample(grad, stride), subsample(x, stride), scale, *slopes)
    strided(dx, stride).copy_(at_pixels)
    return dx


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

    ``x``: (N, C, *) of several pixels; ``scale``, ``shift``: (R, C). ``track`` is called once with
    the groups' means and biased variances, (K, C) float64 and zero for an empty group, and their
    counts.
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
    blocks = _blocks(x, grouping.rows)
    own = torch.stack(moments(x, blocks and blocks.lengths)).double()  # (2, N or B, C)
    mean, second = own.unbind()
    second.addcmul_(mean, mean)
    if blocks is None:
        total = groups.total(own)
    elif groups is grouping.rows:
        total = groups.total_of_blocks(own.mul_(blocks.size))
    else:
        total = own.mul_(blocks.size).sum(1, keepdim=True)
    if grouping.sync:
        local = groups.size.double()
        first, second, values = sums_over_ranks(*(part * pixels for part in (*total, local)))
        known = counts(values)
        mean, second = first / known.divisor, second / known.divisor
    else:
        known = groups.counts(pixels)
        mean, second = total.div_(groups.counts(1).divisor).unbind()
    return mean, second.addcmul_(mean, mean, value=-1).clamp_min_(0), known


def _blocks(x: Tensor, rows: Partition) -> Blocks | None:
    """What moments and sums of ``x`` are taken of, None: samples."""
    return rows.blocks if way_of(x) == "slices" else None


def _row_sums(grad: Tensor, x: Tensor, rows: Partition) -> Tensor:
    """``Σ grad`` and ``Σ grad · x`` over the samples of each row, (2, R, C) float64."""
    blocks = _blocks(x, rows)
    if blocks is None:
        return rows.total(torch.stack(dots(grad, x)).double())
    return rows.total_of_blocks(torch.stack(dots(grad, x, blocks.lengths)).double())


def _over_groups(per_row: Tensor, grouping: Grouping) -> Tensor:
    """(2, R, C) -> (2, K, C): sums over the rows of each group."""
    if grouping.groups is not grouping.rows:
        per_row = per_row.sum(1, keepdim=True)
    return sum_over_ranks(per_row) if grouping.sync else per_row


def _of_samples(rows: Tensor, grouping: Grouping, x: Tensor) -> tuple[Tensor, ...]:
    """(P, R, C) float64 -> P times (N, C) in the dtype that statistics of ``x`` have."""
    assert grouping.rows.group is not None
    return rows.to(accumulate_dtype(x)).index_select(1, grouping.rows.group).unbind()
