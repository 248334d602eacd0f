"""The one core of layer and RMS statistics: moments over the channels at each position.

Every sample has its own scale and shift, which torch's kernels do not take. So all are normalized
together and scaled after it; backward takes large samples one by one (each fits a cache, and the
native kernel applies its scale on the way). For backward x, and a mean and deviation per position,
are kept: nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.norms.kernels.per_sample import accumulate_dtype, spread
from domainnorm.norms.kernels.pooled import graph_gradients

# Below this many values per sample, backward of the batch beats a loop over its samples.
_LOOP_FROM = 16_000


def position_norm(
    x: Tensor, scale: Tensor, shift: Tensor, *, eps: float, axis: int, centred: bool
) -> Tensor:
    """Normalize each position over its channels, then scale and shift it.

    ``y = scale[n] · (x - mean) / sqrt(var + eps) + shift[n]`` (centred), or
    ``y = scale[n] · x / sqrt(avg x² + eps) + shift[n]``.

    ``x``: (N, C, *) where the ``axis`` of the channels is 1, (N, *, C) where it is -1; ``scale``,
    ``shift``: (N or 1, C).
    """
    if torch.compiler.is_compiling():
        return plain_position_norm(x, scale, shift, eps, axis, centred)
    result: Tensor = _PositionNorm.apply(x, scale, shift, eps, axis, centred)
    return result


def plain_position_norm(
    x: Tensor, scale: Tensor, shift: Tensor, eps: float, axis: int, centred: bool
) -> Tensor:
    """`position_norm` in plain operations: for compilers and double backward."""
    wide = x.to(accumulate_dtype(x))
    if centred:
        wide = wide - wide.mean(axis, keepdim=True)
    rstd = torch.rsqrt(wide.square().mean(axis, keepdim=True) + eps)
    return (wide * rstd * spread(scale, x, axis) + spread(shift, x, axis)).to(x.dtype)


class _PositionNorm(torch.autograd.Function):
    """Runs a pair of functions below, and keeps what they need."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, eps: float, axis: int, centred: bool
    ) -> Tensor:
        at = _axis_of(x, axis)
        features = _arranged(x, axis, at)
        if at == 1 or not centred:
            y, mean, rstd = _plain_forward(features, scale, shift, eps, at, centred)
        else:
            y, mean, rstd = _batch_forward(features, scale, shift, eps)
        ctx.save_for_backward(x, scale, shift, mean, rstd)
        ctx.eps, ctx.axis, ctx.centred = eps, axis, centred
        return _as(x, y, axis)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: differentiate the plain formula instead
            with torch.enable_grad():
                output = plain_position_norm(x, scale, shift, ctx.eps, ctx.axis, ctx.centred)
            found = graph_gradients(output, (x, scale, shift), gradients[0])
            return (*found, None, None, None)
        at = _axis_of(x, ctx.axis)
        features, grad = (_arranged(tensor, ctx.axis, at) for tensor in (x, gradients[0]))
        if at == 1 or not ctx.centred or (len(scale) != 1 and not _looped(features)):
            given = mean if ctx.centred else None
            dx, dscale, dshift = _plain_backward(grad, features, scale, (given, rstd), at)
        else:
            dx, dscale, dshift = _native_backward(grad, features, scale, mean, rstd)
        dscale, dshift = dscale.view(scale.shape), dshift.view(shift.shape)
        dx = _as(x, dx, ctx.axis)
        return dx, dscale.to(scale.dtype), dshift.to(shift.dtype), None, None, None


def _looped(rows: Tensor) -> bool:
    return rows.device.type == "cpu" and rows[:1].numel() >= _LOOP_FROM


def _axis_of(x: Tensor, axis: int) -> int:
    """Where `_arranged` puts the channels of ``x``: 1 for contiguous maps, else -1.

    Channels of contiguous maps are far apart in memory: moving them to the end would copy the map
    there and back.
    """
    return 1 if axis == 1 and x.ndim > 2 and x.is_contiguous() else -1


def _arranged(x: Tensor, axis: int, at: int) -> Tensor:
    """Three axes or more with samples first: (N, C, L) for ``at`` 1, else (N, *, C)."""
    if at == 1:
        return x.contiguous().flatten(2)
    return x.unsqueeze(1) if x.ndim == 2 else x.movedim(axis, -1)


def _as(x: Tensor, y: Tensor, axis: int) -> Tensor:
    """``y``, arranged as above, with the axes and the memory layout of ``x``; never a view."""
    at = _axis_of(x, axis)
    if at == 1 or (x.ndim == 3 and axis == -1 and x.is_contiguous() and y.is_contiguous()):
        # A plain view would send in-place activations through a copy.
        same: Tensor = torch.ops.aten._unsafe_view(y.to(x.dtype), list(x.shape))
        return same
    output = torch.empty_like(x)
    _arranged(output, axis, at).copy_(y)
    return output


def _plain_forward(
    x: Tensor, scale: Tensor, shift: Tensor, eps: float, axis: int, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    wide = x.to(accumulate_dtype(x))
    mean = wide.mean(axis, keepdim=True) if centred else wide.new_empty(0)
    apart = wide - mean if centred else wide
    if axis == -1:
        square = torch.linalg.vector_norm(apart, dim=axis, keepdim=True).square_()
    else:  # where the norm of columns is slow
        square = apart.square().sum(axis, keepdim=True)
    rstd = square.div_(x.shape[axis]).add_(eps).rsqrt_()
    normed = apart.mul_(rstd) if centred else wide * rstd
    scale, shift = (spread(rows, x, axis).to(wide.dtype) for rows in (scale, shift))
    return torch.addcmul(shift, normed, scale, out=normed), mean, rstd


def _batch_forward(
    x: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    size = [x.shape[-1]]
    if len(scale) == 1:
        # Wide, and with them the moments that the kernel returns.
        row, offset = (rows[0].to(accumulate_dtype(x)) for rows in (scale, shift))
        # On a GPU the kernel takes all in one dtype.
        taken = x if x.device.type == "cpu" else x.to(accumulate_dtype(x))
        return torch.native_layer_norm(taken, size, row, offset, eps)
    wide = x.to(accumulate_dtype(x))  # or narrow types would be rounded before they are scaled
    # On a CPU the kernel takes half the time with scale and shift of the time without.
    one = torch.ones(size, dtype=wide.dtype, device=x.device)
    y, mean, rstd = torch.native_layer_norm(wide, size, one, torch.zeros_like(one), eps)
    scale, shift = (spread(rows, x, -1).to(wide.dtype) for rows in (scale, shift))
    return torch.addcmul(shift, y, scale, out=y), mean, rstd


def _native_backward(
    grad: Tensor, x: Tensor, scale: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Native kernel, on the batch where there is one scale, else sample by sample."""
    native = torch.ops.aten.native_layer_norm_backward.default
    size, wanted, wide = [x.shape[-1]], [True] * 3, accumulate_dtype(x)
    # The kernel sums the gradients of scale and shift in the dtype of x.
    grad, x, scale = grad.to(wide).contiguous(), x.to(wide), scale.to(wide)
    if len(scale) == 1:
        row = scale[0]
        dx, dscale, dshift = native(grad, x, size, mean, rstd, row, row, wanted)
        return dx, dscale, dshift
    dx, slopes = torch.empty_like(x), []
    samples = zip(*(t.unbind() for t in (dx, grad, x, mean, rstd, scale)), strict=True)
    for written, g, v, m, r, s in samples:
        part, *own = native(g, v, size, m, r, s, s, wanted)
        written.copy_(part)
        slopes.append(own)
    dscale, dshift = (torch.stack(tensors) for tensors in zip(*slopes, strict=True))
    return dx, dscale, dshift


def _plain_backward(
    grad: Tensor, x: Tensor, scale: Tensor, given: tuple[Tensor | None, Tensor], axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """``dx = rstd (g - avg(g x̂) x̂ - avg g)``, g = scale · grad; no ``avg g`` uncentred."""
    mean, rstd = given
    wide = x.to(rstd.dtype)
    normed = wide * rstd if mean is None else (wide - mean).mul_(rstd)
    channels = axis % x.ndim
    pixels = [at for at in range(0 if len(scale) == 1 else 1, x.ndim) if at != channels]
    grad = grad.to(rstd.dtype)
    dscale, dshift = (grad * normed).sum(pixels), grad.sum(pixels)
    scaled = grad * spread(scale, x, axis)
    slope = (scaled * normed).mean(axis, keepdim=True)
    dx = scaled.addcmul_(normed, slope, value=-1)
    if mean is not None:
        dx -= dx.mean(axis, keepdim=True)  # normed has mean zero: the same as avg g
    return dx.mul_(rstd), dscale, dshift
