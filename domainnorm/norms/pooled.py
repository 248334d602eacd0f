"""The one core of instance, domain and batch statistics: moments pooled over groups of samples.

Sample n is normalized with the moments of its group k[n]: itself (instance), its domain, or the
whole batch. With moments m, v (N, C) of samples, M, V (K, C) of groups, R = rsqrt(V + eps)::

    M = avg_k m,   V = avg_k (v + (m - M[k])²)
    y = x · s + t,   s = scale · R[k],   t = shift - M[k] · s
    dx = s · dy + p · x + q,   q = -R[k] G1[k] - p M[k],   p = -R[k]² G2[k]
    dshift = Σ dy,   dscale = (Σ dy·x - M[k] dshift) R[k]
    G1, G2 = group sums of scale·dshift and scale·dscale over the values in the group

Two passes over x forward, two backward, and nothing of x's size is kept beyond x itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from domainnorm.norms.layout import accumulate_dtype, affine, combine, dots, moments, spread


class Pool(NamedTuple):
    """Which samples share moments.

    Args:
        group: Group of each sample, (N,) int64, in ``0..num_groups-1``.
        num_groups: K.
        fallback_mean: (K, C), used by a group that holds a single value per channel, whose
            variance would be zero; None: such a group is normalized to its shift.
        fallback_var: (K, C), as above.
    """

    group: Tensor
    num_groups: int
    fallback_mean: Tensor | None = None
    fallback_var: Tensor | None = None


class Pooled(NamedTuple):
    """What `pooled_norm` returns.

    Args:
        output: Normalized and modulated input, shape, dtype and layout of the input.
        mean: Moments of each group, (K, C); zero for an empty group.
        var: Biased variance of each group, (K, C).
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
    mean = wide.mean(axes) if axes else wide
    var = wide.var(axes, unbiased=False) if axes else torch.zeros_like(wide)
    mean, var, values, _ = _pool(mean, var, pool, x[0, 0].numel())
    s = scale * torch.rsqrt(var + eps).index_select(0, pool.group)
    t = shift - mean.index_select(0, pool.group) * s
    output = (wide * spread(s, x) + spread(t, x)).to(x.dtype)
    return Pooled(output, mean.detach(), var.detach(), values)


def _pool(
    mean: Tensor, var: Tensor, pool: Pool, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Moments of groups (K, C), values per group (K, 1), and 1/values or 0 where they are fixed."""
    count = torch.zeros(pool.num_groups, 1, dtype=mean.dtype, device=mean.device)
    count = count.index_add(0, pool.group, torch.ones_like(mean[:, :1]))
    share = count.clamp(min=1).reciprocal()
    group_mean = _group_sum(mean, pool) * share
    apart = mean - group_mean.index_select(0, pool.group)
    group_var = _group_sum(var + apart.square(), pool) * share
    values = count * size
    inverse = share / size
    if pool.fallback_mean is not None and pool.fallback_var is not None:
        lone = values == 1
        group_mean = torch.where(lone, pool.fallback_mean.to(mean.dtype), group_mean)
        group_var = torch.where(lone, pool.fallback_var.to(mean.dtype), group_var)
        inverse = inverse.masked_fill(lone, 0.0)
    return group_mean, group_var, values, inverse


def _group_sum(per_sample: Tensor, pool: Pool) -> Tensor:
    zeros = per_sample.new_zeros(pool.num_groups, per_sample.shape[1])
    return zeros.index_add(0, pool.group, per_sample)


class _PooledNorm(torch.autograd.Function):
    """The fused path; see the module's docstring for the formulas."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, pool: Pool, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = x[0, 0].numel() if x.ndim > 2 else 1
        mean, var, values, inverse = _pool(*moments(x), pool, size)
        rstd = torch.rsqrt(var + eps)
        s = scale * rstd.index_select(0, pool.group)
        t = shift - mean.index_select(0, pool.group) * s
        output = affine(x, s, t)
        ctx.save_for_backward(x, scale, shift, mean, rstd, inverse)
        ctx.pool, ctx.eps = pool, eps
        ctx.mark_non_differentiable(mean, var, values)
        return output, mean, var, values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad = gradients[0]
        x, scale, shift, mean, rstd, inverse = ctx.saved_tensors
        pool: Pool = ctx.pool
        if torch.is_grad_enabled():  # create_graph=True: differentiate the plain formula instead
            inputs = [tensor for tensor in (x, scale, shift) if tensor.requires_grad]
            with torch.enable_grad():
                output = plain_pooled_norm(x, scale, shift, pool, ctx.eps).output
            found = iter(torch.autograd.grad(output, inputs, grad, create_graph=True))
            needs = (x.requires_grad, scale.requires_grad, shift.requires_grad)
            return (*(next(found) if need else None for need in needs), None, None)
        dshift, product = dots(grad, x)
        mean, rstd = mean.index_select(0, pool.group), rstd.index_select(0, pool.group)
        dscale = (product - mean * dshift) * rstd
        if not ctx.needs_input_grad[0]:
            return None, dscale.to(scale.dtype), dshift.to(shift.dtype), None, None
        first = (_group_sum(scale * dshift, pool) * inverse).index_select(0, pool.group)
        second = (_group_sum(scale * dscale, pool) * inverse).index_select(0, pool.group)
        p = -rstd.square() * second
        q = -rstd * first - p * mean
        dx = combine(grad, x, scale * rstd, p, q)
        return dx, dscale.to(scale.dtype), dshift.to(shift.dtype), None, None
