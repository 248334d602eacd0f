"""Per-sample sums and affine maps, each by the fastest native kernel for the memory layout.

Contiguous input is seen as N·C rows of L values, channels-last input as N·L rows of C values. On
the CPU, torch's group and batch norm kernels vectorize both; elsewhere plain reductions do.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Below this many values per sample, one broadcast expression beats a loop over samples.
_LOOP_FROM = 25_000
_EPS = 1e-5


def accumulate_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 input, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def spread(per_sample: Tensor, x: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, ...), as many axes as ``x``."""
    return per_sample.reshape(*per_sample.shape, *(1,) * (x.ndim - 2))


def is_channels_last(x: Tensor) -> bool:
    """Whether channels vary fastest in memory (and it is not contiguous at the same time)."""
    if x.is_contiguous():
        return False
    if x.ndim == 4:
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.ndim == 5 and x.is_contiguous(memory_format=torch.channels_last_3d)


def _native(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.ndim > 2 and x.dtype != torch.float16 and x.numel() > 0


def _looped(x: Tensor) -> bool:
    return _native(x) and x[0].numel() >= _LOOP_FROM


def _rows(x: Tensor) -> Tensor:
    return x.view(1, x.shape[0] * x.shape[1], -1)  # (1, N*C, L)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each sample and channel.

    Args:
        x: (N, C, *).

    Shape:
        (N, C) each, float32 or float64.
    """
    if x.ndim == 2:
        mean = x.to(accumulate_dtype(x))
        return mean, torch.zeros_like(mean)
    if is_channels_last(x):
        return _looped_moments(x) if _looped(x) else _shifted_moments(x)
    if not _native(x):
        return _plain_moments(x)
    rows = _rows(x.contiguous())
    num_rows, size = rows.shape[1], rows.shape[2]
    one = torch.ones(num_rows, dtype=accumulate_dtype(x))
    _, mean, rstd = torch.native_group_norm(
        rows, one, torch.zeros_like(one), 1, num_rows, size, num_rows, _EPS
    )
    var = (rstd.pow(-2) - _EPS).clamp_min_(0)
    return mean.view(x.shape[:2]), var.view(x.shape[:2])


def _plain_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    wide = x.to(accumulate_dtype(x))
    var, mean = torch.var_mean(wide, tuple(range(2, x.ndim)), unbiased=False)
    return mean, var


def _shifted_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Channels last: sums vectorize over channels; the second moment is taken about the mean."""
    axes, dtype = tuple(range(2, x.ndim)), accumulate_dtype(x)
    size = x[0, 0].numel()
    mean = x.sum(axes, dtype=dtype) / size
    apart = x.to(dtype) - spread(mean, x)
    rest = apart.sum(axes) / size  # what rounding of the mean left over
    var = apart.square_().sum(axes) / size - rest.square()
    return mean, var.clamp_min_(0)


def _looped_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    parts = [torch.batch_norm_update_stats(x[n : n + 1], None, None, 0.0) for n in range(len(x))]
    mean = torch.stack([mean for mean, _ in parts])
    var = torch.stack([var for _, var in parts])
    return mean.to(accumulate_dtype(x)), var.to(accumulate_dtype(x))


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x · scale + shift`` per sample and channel, in a new tensor of x's dtype and layout.

    Args:
        x: (N, C, *).
        scale: (N, C).
        shift: (N, C).
    """
    if not _native(x) or is_channels_last(x):
        return torch.addcmul(spread(shift.to(x.dtype), x), x, spread(scale.to(x.dtype), x))
    x = x.contiguous()
    rows, output = _rows(x), torch.empty_like(x)
    zero = torch.zeros(rows.shape[1], dtype=scale.dtype)
    unused = scale.new_empty(0)
    # `out=` writes into a fresh tensor: a view could not be followed by an in-place activation.
    torch.native_batch_norm(
        rows,
        scale.reshape(-1),
        shift.reshape(-1),
        zero,
        torch.ones_like(zero),
        False,
        0.0,
        0.0,
        out=(_rows(output), unused, unused.clone()),
    )
    return output


def dots(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """``Σ grad`` and ``Σ grad · x`` of each sample and channel, (N, C) each."""
    dtype = accumulate_dtype(x)
    if x.ndim == 2:
        return grad.to(dtype), grad.to(dtype) * x.to(dtype)
    if is_channels_last(x):
        grad = grad.contiguous(memory_format=_memory_format(x))
        if _looped(x):
            return _looped_dots(grad, x)
    elif _native(x):
        return _row_dots(grad.contiguous(), x.contiguous())
    axes = tuple(range(2, x.ndim))
    return grad.sum(axes, dtype=dtype), (grad.to(dtype) * x.to(dtype)).sum(axes)


def _row_dots(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    rows = _rows(x)
    num_rows, size = rows.shape[1], rows.shape[2]
    one = torch.ones(1, num_rows, dtype=accumulate_dtype(x))
    _, product, total = torch.ops.aten.native_group_norm_backward(
        _rows(grad),
        rows,
        torch.zeros_like(one),
        one,
        one.view(-1),
        1,
        num_rows,
        size,
        num_rows,
        [False, True, True],
    )
    return total.view(x.shape[:2]), product.view(x.shape[:2])


def _looped_dots(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    one = torch.ones(x.shape[1], dtype=accumulate_dtype(x))
    fixed = (one, None, None, torch.zeros_like(one), one, True, 0.0, [False, True, True])
    parts = [
        torch.ops.aten.native_batch_norm_backward(grad[n : n + 1], x[n : n + 1], *fixed)
        for n in range(len(x))
    ]
    return torch.stack([part[2] for part in parts]), torch.stack([part[1] for part in parts])


def combine(grad: Tensor, x: Tensor, scale: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """``scale · grad + slope · x + offset`` per sample and channel, in x's dtype and layout."""
    if x.dtype in (torch.float32, torch.float64):
        return affine(x, slope, offset).addcmul_(grad, spread(scale.to(x.dtype), x))
    # Narrow types: the large terms cancel, so they are summed before rounding.
    dtype = accumulate_dtype(x)
    wide = grad.to(dtype) * spread(scale, x) + x.to(dtype) * spread(slope, x) + spread(offset, x)
    return wide.to(x.dtype)


def _memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.ndim == 4 else torch.channels_last_3d
