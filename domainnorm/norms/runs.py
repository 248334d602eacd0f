"""Batches sorted by group: torch's own batch norm on each run of samples, without copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.norms.partition import Partition
from domainnorm.norms.pooled import Pool, plain_pooled_norm


def normalize_runs(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    groups: Partition,
    running: tuple[Tensor, Tensor, float, float],
) -> Tensor:
    """Batch norm of every run of samples with its own scale, shift and running moments.

    Args:
        x: (N, C, *), sorted by group; every run has several values per channel.
        scale: One row per run, (R, C).
        shift: One row per run, (R, C).
        groups: Has ``runs``.
        running: Running mean and variance (K, C), which are moved, their momentum, and eps.
    """
    output: Tensor = _RunsNorm.apply(x, scale, shift, groups, running)
    return output


class _RunsNorm(torch.autograd.Function):
    """Writes slices of the output and of the gradient with ``out=``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        groups: Partition,
        running: tuple[Tensor, Tensor, float, float],
    ) -> Tensor:
        assert groups.runs is not None
        mean_of, var_of, momentum, eps = running
        output = torch.empty_like(x)
        moments = torch.empty(2, *scale.shape, dtype=scale.dtype)
        lengths = groups.runs.lengths
        runs = zip(
            x.split_with_sizes(lengths),
            scale,
            shift,
            output.split_with_sizes(lengths),
            *moments,
            strict=True,
        )
        for row, (part, run_scale, run_shift, *written) in zip(
            groups.runs.labels, runs, strict=True
        ):
            torch.native_batch_norm(
                part,
                run_scale,
                run_shift,
                mean_of[row],
                var_of[row],
                True,
                momentum,
                eps,
                out=tuple(written),
            )
        ctx.save_for_backward(x, scale, shift, moments)
        ctx.groups, ctx.eps = groups, eps
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad = gradients[0]
        x, scale, shift, moments = ctx.saved_tensors
        groups: Partition = ctx.groups
        if torch.is_grad_enabled():  # create_graph=True: differentiate the plain formula instead
            return (*_plain_gradients(grad, (x, scale, shift), groups, ctx.eps), None, None)
        assert groups.runs is not None
        # The kernel wants both in one layout.
        grad = grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)
        dx, slopes = torch.empty_like(x), torch.empty_like(moments)
        lengths = groups.runs.lengths
        parts = zip(
            grad.split_with_sizes(lengths),
            x.split_with_sizes(lengths),
            scale,
            *moments,
            strict=True,
        )
        written = zip(dx.split_with_sizes(lengths), *slopes, strict=True)
        for (run_grad, part, run_scale, mean, rstd), (out0, out1, out2) in zip(
            parts, written, strict=True
        ):
            torch.ops.aten.native_batch_norm_backward.out(
                run_grad,
                part,
                run_scale,
                None,
                None,
                mean,
                rstd,
                True,
                ctx.eps,
                [True, True, True],
                out0=out0,
                out1=out1,
                out2=out2,
            )
        return dx, slopes[0], slopes[1], None, None


def _plain_gradients(
    grad: Tensor, inputs: tuple[Tensor, ...], groups: Partition, eps: float
) -> list[Tensor | None]:
    assert groups.runs is not None
    x, scale, shift = inputs
    lengths = torch.tensor(groups.runs.lengths)
    with torch.enable_grad():
        scales, shifts = (table.repeat_interleave(lengths, dim=0) for table in (scale, shift))
        output = plain_pooled_norm(x, scales, shifts, Pool(groups), eps).output
    needed = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(output, needed, grad, create_graph=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]
