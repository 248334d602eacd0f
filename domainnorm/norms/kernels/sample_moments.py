"""Normalization in two differentiable steps, for statistics that mix moments before they use them.

First the moments of each sample and channel (N, C), then one affine map per sample and channel;
what lies between them (pooling over samples or channels, gates, softmax) is plain arithmetic on
small tensors. Each step keeps x and nothing else of its size for backward.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from domainnorm.norms.kernels.partition import sum_over_ranks, sums_over_ranks
from domainnorm.norms.kernels.per_sample import accumulate_dtype, affine, dots, moments, spread


class Moments(NamedTuple):
    """Mean and biased variance, of equal shape."""

    mean: Tensor
    var: Tensor


def sample_moments(x: Tensor) -> Moments:
    """Mean and biased variance of each sample and channel of ``x`` (N, C, *), (N, C) each."""
    if torch.compiler.is_compiling():
        return _plain_moments(x)
    return Moments(*_SampleMoments.apply(x))


def affine_map(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x · scale + shift`` per sample and channel, (N, C) each; dtype and layout of ``x``."""
    if torch.compiler.is_compiling():
        wide = x.to(accumulate_dtype(x))
        return (wide * spread(scale, x) + spread(shift, x)).to(x.dtype)
    result: Tensor = _AffineMap.apply(x, scale, shift)
    return result


def normalize(x: Tensor, given: Moments, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """``scale · (x - mean) / sqrt(var + eps) + shift`` with moments (N or 1, C) that are given."""
    shape = x.shape[:2]
    per_sample = scale * torch.rsqrt(given.var + eps)
    offset = shift - given.mean * per_sample
    return affine_map(x, per_sample.expand(shape), offset.expand(shape))


def pool_samples(
    own: Moments, group: Tensor, num_groups: int, *, size: int = 1, sync: bool = False
) -> tuple[Moments, Tensor]:
    """Moments (K, C) of groups of samples, and how many values each has per channel, (K, 1).

    Args:
        own: Moments of the samples, (N, C).
        group: Group of each sample, (N,), in ``0..K-1``; an empty group gets zeros.
        num_groups: K.
        size: Values per channel of a sample.
        sync: Groups go on over the ranks; all of them must call, forward and backward.
    """
    zeros = own.mean.new_zeros(num_groups, own.mean.shape[1])
    values = zeros[:, :1].index_add(0, group, torch.full_like(own.mean[:, :1], size))
    total = zeros.index_add(0, group, own.mean * size)
    if sync:
        total, values = sums_over_ranks(total, values)
    share = values.detach().clamp(min=1).reciprocal()
    mean = total * share
    apart = own.mean - mean.index_select(0, group)
    within = zeros.index_add(0, group, (own.var + apart.square()) * size)
    if sync:
        within = sum_over_ranks(within)
    return Moments(mean, within * share), values.detach()


def pool_channels(own: Moments, num_groups: int) -> Moments:
    """Moments of each sample over the channels of a group, repeated for its channels, (N, C)."""
    num_samples, num_features = own.mean.shape
    shape = (num_samples, num_groups, num_features // num_groups)
    mean, var = own.mean.view(shape), own.var.view(shape)
    pooled = mean.mean(2, keepdim=True)
    within = (var + (mean - pooled).square()).mean(2, keepdim=True)
    return Moments(
        pooled.expand(shape).reshape(num_samples, num_features),
        within.expand(shape).reshape(num_samples, num_features),
    )


def _plain_moments(x: Tensor) -> Moments:
    wide, axes = x.to(accumulate_dtype(x)), tuple(range(2, x.ndim))
    if not axes:
        return Moments(wide, torch.zeros_like(wide))
    return Moments(wide.mean(axes), wide.var(axes, unbiased=False))


class _SampleMoments(torch.autograd.Function):
    """``dx = (dmean + 2 dvar (x - mean)) / L`` for L values per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = moments(x)
        if x.ndim == 2 and mean is x:  # an input must not be returned as an output
            mean = x.clone()
        ctx.save_for_backward(x, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        dmean, dvar = gradients
        if x.ndim == 2:
            only: Tensor = dmean.to(x.dtype)
            return only
        size = x.shape[2:].numel()
        slope = dvar * (2 / size)
        if torch.is_grad_enabled():  # create_graph=True
            wide: Tensor = x.to(mean.dtype)
            apart = wide - spread(wide.mean(tuple(range(2, x.ndim))), x)
            dx: Tensor = spread(dmean / size, x) + spread(slope, x) * apart
            return dx.to(x.dtype)
        return affine(x, slope, dmean / size - slope * mean)


class _AffineMap(torch.autograd.Function):
    """``dx = dy · scale``, ``dscale = Σ dy · x``, ``dshift = Σ dy``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return affine(x, scale, shift)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grad = gradients[0]
        x, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            axes, wide = tuple(range(2, x.ndim)), grad.to(scale.dtype)
            product = wide * x.to(scale.dtype)
            sums = (wide.sum(axes), product.sum(axes)) if axes else (wide, product)
        else:
            sums = dots(grad, x)
        dx = grad * spread(scale, x).to(x.dtype)
        return dx, sums[1].to(scale.dtype), sums[0].to(scale.dtype)
