"""Per-sample sums and affine maps, each by the fastest native kernel for the memory layout.

`way_of` is the one place that chooses:

============ =========================== ==========================================================
way          input                       how
============ =========================== ==========================================================
``rows``     contiguous, CPU             N·C rows of L values, through group and batch norm kernels
``slices``   channels_last, CPU, large   slices of samples, each through the batch norm kernels
``plain``    everything else             reductions and broadcasts; no synchronization on a GPU
============ =========================== ==========================================================

torch's group norm computes E[x²]-E[x]² on channels_last input, which is wrong by 2e3 at mean 1000
and standard deviation 1: it is never used there.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Way: TypeAlias = Literal["rows", "slices", "plain"]

# Below this many values in a slice, calling a kernel for it costs more than what it does.
_SLICE_FROM = 50_000
# Below this many values in a row, the group norm kernel spends its time between rows.
_ROW_FROM = 128
# Bags add one row after the other: fast where rows are long and there are many of them in all, and
# exact enough where a bag holds few.
_BAG_CHANNELS, _BAG_ROWS, _BAG_FROM = 256, 256, 400_000
_EPS = 1e-5


def accumulate_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 input, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def spread(per_sample: Tensor, x: Tensor, axis: int = 1) -> Tensor:
    """(N, C) -> as many axes as ``x``, channels at ``axis``: (N, C, 1, ...) or (N, 1, ..., C)."""
    shape = [1] * x.ndim
    shape[0], shape[axis] = per_sample.shape
    return per_sample.reshape(shape)


def is_channels_last(x: Tensor) -> bool:
    """Whether channels vary fastest in memory (and it is not contiguous at the same time)."""
    if x.is_contiguous():
        return False
    if x.ndim == 4:
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.ndim == 5 and x.is_contiguous(memory_format=torch.channels_last_3d)


def way_of(x: Tensor) -> Way:
    """Which kernels serve ``x`` (N, C, *)."""
    if x.device.type != "cpu" or x.ndim == 2 or x.dtype == torch.float16 or x.numel() == 0:
        return "plain"
    if not is_channels_last(x):
        return "rows"
    return "slices" if x.numel() >= _SLICE_FROM * len(x) else "plain"


def group_norm_serves(x: Tensor) -> bool:
    """Whether torch's group norm is right for ``x`` seen as one sample of N·C channels."""
    # That view would make a compiler start anew for each batch size. On channels_last, group_norm
    # computes E[x²]-E[x]², which is unsafe. On a GPU it wants scales in the dtype of x.
    if x.shape[0] == 0 or torch.compiler.is_compiling() or is_channels_last(x):
        return False
    return x.device.type == "cpu" or x.dtype in (torch.float32, torch.float64)


def group_norm_of_samples(
    x: Tensor, num_groups: int, scale: Tensor, shift: Tensor, eps: float
) -> Tensor:
    """Group norm with scale and shift (N, C) of each sample, where `group_norm_serves`."""
    num_samples, num_features = x.shape[:2]
    # One sample of N·C channels: each with a weight of its own, so one pass does.
    output = F.group_norm(
        x.reshape(1, num_samples * num_features, *x.shape[2:]),
        num_samples * num_groups,
        scale.reshape(-1),
        shift.reshape(-1),
        eps,
    )
    # A plain view would send the in-place activations of timm through a copy.
    result: Tensor = torch.ops.aten._unsafe_view(output, list(x.shape))
    return result


def _rows(x: Tensor) -> Tensor:
    return x.view(1, x.shape[0] * x.shape[1], -1)  # (1, N*C, L)


def moments(x: Tensor, lengths: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each sample and channel of ``x`` (N, C, *), (N, C) each.

    For the way ``slices``: of so many samples as ``lengths`` say, one after the other, (S, C).
    """
    if x.ndim == 2:
        mean = x.to(accumulate_dtype(x))
        return mean, torch.zeros_like(mean)
    way = way_of(x)
    if way == "slices":
        return _slice_moments(x, lengths)
    if way == "plain" or x.shape[2:].numel() < _ROW_FROM:
        return _plain_moments(x)
    rows = _rows(x.contiguous())
    num_rows, size = rows.shape[1], rows.shape[2]
    one = torch.ones(num_rows, dtype=accumulate_dtype(x))
    _, mean, rstd = torch.native_group_norm(
        rows, one, torch.zeros_like(one), 1, num_rows, size, num_rows, _EPS
    )
    var = rstd.pow_(-2).sub_(_EPS).clamp_min_(0)
    return mean.view(x.shape[:2]), var.view(x.shape[:2])


def raw_moments(x: Tensor) -> Tensor:
    """Mean and mean square of each sample and channel of ``x`` (N, C, *), which add up: (N, 2, C).

    In float64.
    """
    mean, var = (moment.double() for moment in moments(x))
    return torch.stack([mean, var + mean.square()], 1)


def _flat(x: Tensor) -> tuple[Tensor, int]:
    """``x`` with one axis of pixels as a view; and where it is.

    Sums over it are faster, and its samples, (L, C) in channels_last, are what torch's kernels take
    with the least ado.
    """
    if is_channels_last(x):
        return x.movedim(1, -1).flatten(1, -2), 1  # (N, L, C)
    return x.flatten(2), 2  # (N, C, L)


def _plain_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulate_dtype(x)
    flat, pixels = _flat(x)
    size = flat.shape[pixels]
    mean = _sum_pixels(flat, pixels, dtype).div_(size)
    wide = flat.to(dtype)
    # (wide - mean)² in one pass.
    apart = F.mse_loss(wide, mean.unsqueeze(pixels).expand_as(wide), reduction="none")
    return mean, _sum_pixels(apart, pixels, dtype).div_(size)


def _sum_pixels(flat: Tensor, pixels: int, dtype: torch.dtype) -> Tensor:
    """Sums over the axis ``pixels`` of (N, L, C) or (N, C, L), (N, C) in ``dtype``."""
    num_samples, size, num_features = flat.shape
    pays = num_features >= _BAG_CHANNELS and size <= _BAG_ROWS and flat.numel() >= _BAG_FROM
    if not pays or pixels == 2 or flat.dtype != torch.float32 or flat.device.type != "cpu":
        return flat.sum(pixels, dtype=dtype)
    # Bags of L rows each: half the time of a reduction.
    row = torch.arange(num_samples * size)
    return F.embedding_bag(row, flat.reshape(-1, num_features), row[::size], mode="sum")


def _slices(x: Tensor, lengths: list[int] | None) -> tuple[Tensor, ...]:
    """Pixels of each sample, or of so many samples, (L, C) each."""
    flat = _flat(x)[0]
    if lengths is None:
        return flat.unbind()
    size = flat.shape[1]
    return flat.flatten(0, 1).split_with_sizes([length * size for length in lengths])


def _slice_moments(x: Tensor, lengths: list[int] | None) -> tuple[Tensor, Tensor]:
    running: tuple[Tensor | None, Tensor | None] = (None, None)
    if x.dtype != accumulate_dtype(x):  # without any, moments are rounded to the dtype of x
        zero = torch.zeros(x.shape[1], dtype=accumulate_dtype(x))
        running = zero, torch.ones_like(zero)
    update = torch.batch_norm_update_stats
    parts = [update(part, *running, 0.0) for part in _slices(x, lengths)]
    means, variances = zip(*parts, strict=True)
    found = torch.stack(means + variances).to(accumulate_dtype(x))
    mean, var = found.view(2, -1, x.shape[1]).unbind()
    return mean, var


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x · scale + shift`` per sample and channel, (N, C), in a new tensor like ``x``."""
    if way_of(x) != "rows":
        return scaled(x, scale, shift)
    zero = torch.zeros(scale.numel(), dtype=scale.dtype)
    return normalize_rows(x, scale, shift, zero, torch.ones_like(zero), 0.0)


def scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`affine` in plain operations, differentiable; narrow types are rounded once, at the end.

    Rounded before, shift and mean · scale would no longer cancel: an offset of each channel.
    """
    wide = accumulate_dtype(x)
    scale, shift = (spread(rows.to(wide), x) for rows in (scale, shift))
    return torch.addcmul(shift, x, scale).to(x.dtype)


def normalize_rows(
    x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    """Normalize ``x`` (N, C, *) with given moments; for the way ``rows``, no gradient.

    All rows are (N, C), or (K, C) where samples take turns, 0, 1, …, K-1, 0, 1, …; or flattened.
    """
    x = x.contiguous()
    output, unused = torch.empty_like(x), scale.new_empty(0)
    shape = (-1, scale.numel(), x.shape[2:].numel())
    scale, shift, mean, var = (rows.reshape(-1) for rows in (scale, shift, mean, var))
    # `out=` writes into a fresh tensor: a view could not be followed by an in-place activation.
    out = (output.view(shape), unused, unused.clone())
    torch.native_batch_norm(x.view(shape), scale, shift, mean, var, False, 0.0, eps, out=out)
    return output


def dots(grad: Tensor, x: Tensor, lengths: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """``Σ grad`` and ``Σ grad · x`` of each sample and channel, as `moments` takes them."""
    dtype = accumulate_dtype(x)
    if x.ndim == 2:
        return grad.to(dtype), grad.to(dtype) * x.to(dtype)
    way = way_of(x)
    if way == "rows":
        return _row_dots(grad.contiguous(), x.contiguous())
    if way == "slices":
        return _slice_dots(like(grad, x), x, lengths)
    (flat, pixels), (flat_grad, _) = _flat(x), _flat(like(grad, x))
    product = flat_grad.to(dtype) * flat.to(dtype)
    return _sum_pixels(flat_grad, pixels, dtype), _sum_pixels(product, pixels, dtype)


def _row_dots(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    rows = _rows(x)
    num_rows, size = rows.shape[1], rows.shape[2]
    one = torch.ones(1, num_rows, dtype=accumulate_dtype(x))
    neutral, sizes = (torch.zeros_like(one), one), (1, num_rows, size, num_rows)
    _, product, total = torch.ops.aten.native_group_norm_backward(
        _rows(grad), rows, *neutral, one.view(-1), *sizes, [False, True, True]
    )
    return total.view(x.shape[:2]), product.view(x.shape[:2])


def _slice_dots(grad: Tensor, x: Tensor, lengths: list[int] | None) -> tuple[Tensor, Tensor]:
    one = torch.ones(x.shape[1], dtype=accumulate_dtype(x))
    fixed = (one, None, None, torch.zeros_like(one), one, True, 0.0, [False, True, True])
    backward = torch.ops.aten.native_batch_norm_backward.default
    pairs = zip(_slices(grad, lengths), _slices(x, lengths), strict=True)
    parts = [backward(*pair, *fixed) for pair in pairs]
    _, products, totals = zip(*parts, strict=True)
    total, product = torch.stack(totals + products).view(2, -1, x.shape[1]).unbind()
    return total, product


def strided(x: Tensor, stride: int) -> Tensor:
    """Every ``stride``-th pixel along each axis of ``x`` (N, C, *), as a view."""
    if stride == 1 or x.ndim == 2:
        return x
    index = [slice(None)] * 2 + [slice(None, None, stride)] * (x.ndim - 2)
    return x[tuple(index)]


def subsample(x: Tensor, stride: int) -> Tensor:
    """Every ``stride``-th pixel along each axis, in x's layout."""
    if stride == 1 or x.ndim == 2:
        return x
    return like(strided(x, stride), x)


def like(tensor: Tensor, x: Tensor) -> Tensor:
    """``tensor`` in the memory layout of ``x``: channels last, or contiguous."""
    if not is_channels_last(x):
        return tensor.contiguous()
    last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return tensor.contiguous(memory_format=last)


def combine(grad: Tensor, x: Tensor, scale: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """``scale · grad + slope · x + offset`` per sample and channel, in x's dtype and layout."""
    if x.dtype in (torch.float32, torch.float64):
        return affine(x, slope, offset).addcmul_(grad, spread(scale.to(x.dtype), x))
    # Narrow types: the large terms cancel, so they are summed before rounding.
    dtype = accumulate_dtype(x)
    wide = grad.to(dtype) * spread(scale, x) + x.to(dtype) * spread(slope, x) + spread(offset, x)
    return wide.to(x.dtype)
