"""Batch norm of groups of samples, in the fastest way for each batch; nothing of x's size is kept.

`normalize_batch` is the one place that chooses. Torch's own batch norm serves

- a batch of one group;
- *turns*: small contiguous maps with equal parts of every group. Once the groups take turns,
  0, 1, …, K-1, 0, 1, …, a batch (N, C, *) is, without a copy, one of N / K samples with K·C
  channels, of which one call makes the moments of each group. In another order the batch is put
  into this one first, which costs what small maps can afford;
- *blocks*: channels_last maps, and other small ones, whose samples are sorted by group; one call
  for each.

All other batches go to `domainnorm.norms.kernels.pooled`: arithmetic on rows where scale and shift
are functions of the domain, on samples elsewhere and under a compiler. On a GPU that is every
batch: labels are not read there, which would cost a synchronization.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.norms.kernels.partition import Blocks, Counts, Partition, Turns, counts
from domainnorm.norms.kernels.per_sample import (
    accumulate_dtype,
    combine,
    is_channels_last,
    like,
    normalize_rows,
    scaled,
    way_of,
)
from domainnorm.norms.kernels.pooled import (
    Grouping,
    Pool,
    gradients_of_rows,
    grouped_norm,
    pooled_norm,
)

# What torch's batch norm kernel takes on the CPU, and beside scales and moments of which type.
_NATIVE = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.bfloat16: torch.float32,
}
# Below so many values of a contiguous map, calling torch's kernel once for all groups that take
# turns is faster than other ways; and the same where they have to be made to.
_TURNS_BELOW, _TURNS_BELOW_ARRANGED = 300_000, 150_000
# Below so many, calling it for each block is faster than arithmetic on rows.
_BLOCKS_BELOW = 200_000
# From so many values on in channels_last, one pass over the gradient of all blocks is faster than
# the kernel's passes over each, whose results have to be joined.
_JOINT_FROM = 400_000


class Running(NamedTuple):
    """Running moments of groups, and how a batch moves them.

    Args:
        mean: (K, C).
        var: (K, C).
        batches: How many batches each group has seen, (K,) int64.
        momentum: Weight of the batch; None for the cumulative average.
        eps: Added to variances.
        stride: Moments of a batch are those of every ``stride``-th pixel along each axis.
        sync: Whether groups go on over the ranks that train together.
    """

    mean: Tensor
    var: Tensor
    batches: Tensor
    momentum: float | None
    eps: float
    stride: int = 1
    sync: bool = False


def normalize_batch(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    groups: Partition,
    rows: Partition | None,
    running: Running,
) -> Tensor:
    """Training: normalize with the moments of each group, and track them.

    ``scale``, ``shift``: (R, C) with ``rows``, samples that share them, else (N or 1, C). Every
    group is a union of rows; ``running`` moves in place for the groups that are present.
    """
    sync = running.sync and groups.on_ranks
    if rows is not None and not sync and _native_serves(x, rows, groups, running):
        assert rows.blocks is not None
        if len(rows.blocks.labels) == 1:
            row = rows.blocks.labels[0]
            return _normalize_single(x, scale[row], shift[row], groups, running)
        norm, wide = _prefers(x, groups) if rows is groups else None, running.mean.dtype
        if norm is not None:
            running.batches.add_(rows.blocks.seen)
            output: Tensor = norm.apply(x, scale.to(wide), shift.to(wide), groups, running)
            return output
    if rows is not None and _by_rows(x, rows, running):
        grouping = Grouping(rows, groups, sync)
        return grouped_norm(x, scale, shift, grouping, running.eps, partial(track, running))
    if rows is not None:
        assert rows.group is not None
        scale, shift = (table.index_select(0, rows.group) for table in (scale, shift))
    shape = x.shape[:2]
    pool = Pool(groups, running.mean, running.var, running.stride, sync)
    pooled = pooled_norm(x, scale.expand(shape), shift.expand(shape), pool, running.eps)
    track(running, pooled.mean, pooled.var, counts(pooled.values))
    return pooled.output


@torch.no_grad()
def track(running: Running, mean: Tensor, var: Tensor, known: Counts) -> None:
    """Move the running moments of groups of several values towards (K, C) of this batch."""
    running.batches.add_(known.steps)
    factor: Tensor | float
    if running.momentum is None:
        seen_so_far = running.batches.clamp(min=1)[:, None]
        factor = seen_so_far.to(running.mean.dtype).reciprocal()
    else:
        factor = running.momentum
    # A weight of zero leaves absent rows as they are, bit for bit.
    # Widened first: 0.1 in float32 would move float64 moments by 1e-9 of their size.
    weight = known.seen.to(running.mean.dtype) * factor
    for tracked, batch in ((running.mean, mean), (running.var, var * known.unbiased)):
        # Torch's batch norm of an earlier batch, whose backward is still to come, has kept
        # these buffers, though it does not read them; as its own kernel does, this moves them
        # without autograd noticing.
        moved = tracked if torch.compiler.is_compiling() else tracked.data
        moved.lerp_(batch.to(tracked.dtype), weight)


def evaluate_rows(
    x: Tensor, scale: Tensor, shift: Tensor, rows: Partition, running: Running
) -> Tensor:
    """Evaluation: scale and shift are those of rows, (R or 1, C); no state changes."""
    tables = running.mean, running.var, scale, shift
    assert rows.group is not None
    if rows.blocks is not None and len(rows.blocks.labels) == 1:
        row = rows.blocks.labels[0]
        mean, var, scale, shift = (t[row if len(t) > 1 else 0] for t in tables)
        return F.batch_norm(x, mean, var, scale, shift, False, 0.0, running.eps)
    turns = rows.turns
    if turns is not None and turns.order is None and not _is_traced() and way_of(x) == "rows":
        shape, dtype = (turns.num_groups, x.shape[1]), accumulate_dtype(x)
        mean, var, scale, shift = (t.to(dtype).expand(shape) for t in tables)
        return normalize_rows(x, scale, shift, mean, var, running.eps)
    given = (t.index_select(0, rows.group) if len(t) > 1 else t for t in tables)
    mean, var, scale, shift = given
    return evaluate_samples(x, scale, shift, (mean, var), running.eps)


def evaluate_samples(
    x: Tensor, scale: Tensor, shift: Tensor, moments: tuple[Tensor, Tensor], eps: float
) -> Tensor:
    """Evaluation: mean and variance of each sample, (N, C) or (1, C), are given."""
    mean, var = moments
    # Not len(): it is a number, which an export would keep as the one batch size there is.
    # Torch's batch norm has no gradient for moments, which those of a mixture may want.
    wanted = torch.is_grad_enabled() and (mean.requires_grad or var.requires_grad)
    if scale.shape[0] == mean.shape[0] == 1 and not wanted:
        return F.batch_norm(x, mean[0], var[0], scale[0], shift[0], False, 0.0, eps)
    shape, dtype = x.shape[:2], accumulate_dtype(x)
    scale, shift, mean, var = (t.to(dtype).expand(shape) for t in (scale, shift, mean, var))
    if not _is_traced() and way_of(x) == "rows":
        return normalize_rows(x, scale, shift, mean, var, eps)
    per_sample = torch.rsqrt(var + eps) * scale
    return scaled(x, per_sample, torch.addcmul(shift, mean, per_sample, value=-1))


def _native_serves(x: Tensor, rows: Partition, groups: Partition, running: Running) -> bool:
    """Whether torch's batch norm can take each group, and moves its moments as wanted."""
    if rows.blocks is None or groups.blocks is None:
        return False
    if running.stride > 1 or running.momentum is None:
        return False
    if _NATIVE.get(x.dtype) != running.mean.dtype:
        return False
    return groups.blocks.fewest * x.shape[2:].numel() > 1  # a group of one value has no variance


def _prefers(x: Tensor, groups: Partition) -> type[_TurnsNorm] | type[_BlocksNorm] | None:
    """The way for several groups; None: arithmetic on rows."""
    size, turns, blocks = x.numel(), groups.turns, groups.blocks
    if turns is not None and x.is_contiguous():
        below = _TURNS_BELOW if turns.order is None else _TURNS_BELOW_ARRANGED
        if size < below:
            return _TurnsNorm
    if blocks is not None and blocks.whole and (size < _BLOCKS_BELOW or is_channels_last(x)):
        return _BlocksNorm
    return None


def _by_rows(x: Tensor, rows: Partition, running: Running) -> bool:
    """Whether `grouped_norm` serves: it knows no stride, and no group of a single value."""
    several = x.shape[2:].numel() > 1 and running.stride == 1
    # float64 is not there on Apple's GPUs.
    wide = rows.group is not None and x.device.type != "mps"
    return several and wide and not torch.compiler.is_compiling()


def _is_traced() -> bool:
    """Whether someone follows the operations: autograd or a compiler."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def _normalize_single(
    x: Tensor, scale: Tensor, shift: Tensor, groups: Partition, running: Running
) -> Tensor:
    """All samples share moments, those of the one group, and one pair; (C,) each."""
    blocks = groups.blocks
    assert blocks is not None
    running.batches.add_(blocks.seen)
    row = blocks.labels[0]
    mean, var, momentum = running.mean[row], running.var[row], running.momentum
    assert momentum is not None
    # Not F.batch_norm, which checks once more that there are several values.
    cudnn = torch.backends.cudnn.enabled
    return torch.batch_norm(x, scale, shift, mean, var, True, momentum, running.eps, cudnn)


class _TurnsNorm(torch.autograd.Function):
    """One kernel forward, one backward; contiguous x, every group of several values."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, groups: Partition, running: Running
    ) -> Tensor:
        turns = groups.turns
        assert turns is not None
        assert running.momentum is not None
        part = _arranged(x, turns.order)
        output = torch.empty_like(part)
        moments = torch.empty(2, scale.numel(), dtype=scale.dtype)
        rows = (scale.reshape(-1), shift.reshape(-1), running.mean.view(-1), running.var.view(-1))
        fixed = (True, running.momentum, running.eps)
        out = (_wide(output, turns), moments[0], moments[1])
        torch.native_batch_norm(_wide(part, turns), *rows, *fixed, out=out)
        ctx.save_for_backward(x, scale, shift, moments)
        ctx.groups, ctx.eps = groups, running.eps
        return _arranged(output, turns.inverse)

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
        grad = _arranged(gradients[0].contiguous(), turns.order)
        # Not the variant with out=: it computes the same and copies it.
        backward = torch.ops.aten.native_batch_norm_backward.default
        whole = _wide(_arranged(x, turns.order), turns)
        fixed = (None, None, *moments.unbind(), True, ctx.eps, [True, True, True])
        dx, dscale, dshift = backward(_wide(grad, turns), whole, scale.reshape(-1), *fixed)
        dx = _arranged(dx.view(x.shape), turns.inverse)
        return dx, dscale.view(scale.shape), dshift.view(scale.shape), None, None


def _arranged(x: Tensor, order: Tensor | None) -> Tensor:
    """Samples in another order."""
    return x if order is None else x.index_select(0, order)


def _wide(x: Tensor, turns: Turns) -> Tensor:
    """(N, C, *) -> (N / K, K·C, L), a view."""
    return x.view(x.shape[0] // turns.num_groups, turns.num_groups * x.shape[1], -1)


class _BlocksNorm(torch.autograd.Function):
    """Writes blocks of the output with ``out=``; every group is one block of several values."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, groups: Partition, running: Running
    ) -> Tensor:
        blocks = groups.blocks
        assert blocks is not None
        assert running.momentum is not None
        # The kernel with its out= takes strided input for contiguous, and is wrong.
        whole = like(x, x)
        output = torch.empty_like(whole)
        moments = torch.empty(2, len(blocks.labels), scale.shape[1], dtype=scale.dtype)
        parts = (_split(whole, blocks), _split(output, blocks), *moments.unbind())
        fixed = (True, running.momentum, running.eps)
        for row, part, *out in zip(blocks.labels, *parts, strict=True):
            rows = (scale[row], shift[row], running.mean[row], running.var[row])
            torch.native_batch_norm(part, *rows, *fixed, out=tuple(out))
        ctx.save_for_backward(x, scale, shift, moments)
        ctx.groups, ctx.eps = groups, running.eps
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, moments = ctx.saved_tensors
        groups: Partition = ctx.groups
        blocks = groups.blocks
        if torch.is_grad_enabled():  # create_graph=True: differentiate the plain formula instead
            given = (x, scale, shift)
            found = gradients_of_rows(gradients[0], given, groups, Pool(groups), ctx.eps)
            return (*found, None, None)
        assert blocks is not None
        grad, whole = like(gradients[0], x), like(x, x)
        joint = is_channels_last(x) and x.numel() >= _JOINT_FROM and x.dtype == scale.dtype
        # Not the variant with out=: it computes the same and copies it.
        backward = torch.ops.aten.native_batch_norm_backward.default
        fixed = (True, ctx.eps, [not joint, True, True])
        parts = (*moments.unbind(), _split(grad, blocks), _split(whole, blocks))
        found = [
            backward(dy, part, scale[row], None, None, mean, rstd, *fixed)
            for row, mean, rstd, dy, part in zip(blocks.labels, *parts, strict=True)
        ]
        dx, dscale, dshift = (list(ones) for ones in zip(*found, strict=True))
        rows = torch.stack(dscale), torch.stack(dshift)
        return (
            _combined(grad, whole, scale, rows, moments, blocks) if joint else torch.cat(dx),
            *(_table(of_blocks, blocks, scale) for of_blocks in rows),
            None,
            None,
        )


def _split(x: Tensor, blocks: Blocks) -> tuple[Tensor, ...]:
    return x.split_with_sizes(blocks.lengths)


def _combined(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    rows: tuple[Tensor, Tensor],
    moments: Tensor,
    blocks: Blocks,
) -> Tensor:
    """The input's gradient for all blocks at once, from their rows' gradients (B, C)."""
    dscale, dshift = rows
    mean, rstd = moments.double()
    share = scale.index_select(0, blocks.group) * rstd
    per_value = share / (blocks.size * x.shape[2:].numel())
    slope = (per_value * rstd).mul_(dscale).neg_()
    offset = (per_value * dshift).addcmul_(slope, mean).neg_()
    of_blocks = torch.stack([share, slope, offset]).to(x.dtype)
    return combine(grad, x, *of_blocks.index_select(1, blocks.block).unbind())


def _table(found: Tensor, blocks: Blocks, like_table: Tensor) -> Tensor:
    """Rows of the blocks put where their groups are, zeros for absent ones, (K, C)."""
    if blocks.labels == list(range(len(like_table))):
        return found
    return torch.zeros_like(like_table).index_copy_(0, blocks.group, found)
