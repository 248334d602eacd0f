"""Statistics: what they promise, and the running moments that batch and domain statistics share."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.errors import DomainNormError
from domainnorm.norms.kernels.collectives import several_ranks
from domainnorm.norms.kernels.grouped import Grouping, grouped_norm
from domainnorm.norms.kernels.partition import Counts, Partition, Runs, Turns, counts
from domainnorm.norms.kernels.per_sample import (
    accumulate_dtype,
    is_channels_last,
    normalize_rows,
    scaled,
    way_of,
)
from domainnorm.norms.kernels.pooled import Pool, pooled_norm
from domainnorm.norms.kernels.runs import Tracked, normalize_runs
from domainnorm.norms.kernels.turns import normalize_turns

# What torch's batch norm kernel takes beside float32 or float64 scales on the CPU.
_NATIVE = (torch.float32, torch.float64, torch.bfloat16)
# Below so many values of a contiguous map, calling torch's kernel for each group is faster than
# arithmetic on rows.
_RUNS_BELOW = 200_000
# Below so many, calling it once for all groups that take turns is faster than either; and the same
# where they have to be made to.
_TURNS_BELOW, _TURNS_BELOW_ARRANGED = 300_000, 150_000
# As for runs, where the batch has to be sorted for it.
_SORT_BELOW = 100_000


class Statistics(nn.Module, abc.ABC):
    """Which moments normalize a sample.

    Subclasses are called as ``Statistics(num_features, num_domains, **options)``; ``path`` is the
    module path of the layer they are in. ``tokens``: channels are the last axis of ``x``, not the
    second. ``takes_rows``: may be called with a pair per domain and ``rows=True``, which spares the
    arithmetic per sample.
    """

    path: str = ""
    tokens: bool = False
    takes_rows: bool = False

    @property
    def keeps_function(self) -> bool:
        """Whether evaluation equals the batch norm whose moments were given to `start`."""
        return False

    @property
    def tracks_domains(self) -> bool:
        """Whether there are running moments with a row per domain."""
        return False

    @abc.abstractmethod
    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` (N, C, *), then apply ``scale`` and ``shift``, (N or 1, C) each."""

    def start(self, mean: Tensor, var: Tensor, batches: Tensor | None) -> None:
        """Take over running moments (C,) of the layer that is replaced; nothing where none are."""


class RunningMoments(Statistics):
    """Normalizes with the moments of groups of samples, and keeps running ones for evaluation.

    Training: moments of the group in this batch; ``running += momentum · (batch - running)`` for
    the groups that are present, with the unbiased variance, as in PyTorch. A group that holds a
    single value per channel has no variance: its running moments normalize it and stay as they
    are. When several ranks train together, a group's moments are those of its samples on all of
    them. Evaluation: running moments.

    Args:
        num_features: C.
        num_rows: Rows of running moments, R.
        momentum: Weight of the new batch in [0, 1]; None for the cumulative average.
        eps: Added to the variance.
        stride: Moments of a batch are those of every ``stride``-th pixel along each axis, ≥ 1.
        sync: Whether moments go on over ranks; every rank must then run every layer equally often.
        frozen: Whether the running moments normalize in training too, and stay as they are.

    Shape:
        ``running_mean``, ``running_var``: (R, C). ``num_batches_tracked``: (R,), batches each row
        has seen.
    """

    takes_rows = True
    row_names = ("running_mean", "running_var", "num_batches_tracked")
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        num_rows: int,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        stride: int = 1,
        sync: bool = True,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.stride = checked_stride(stride)
        self.sync = sync
        self.frozen = frozen
        self.register_buffer("running_mean", torch.zeros(num_rows, num_features))
        self.register_buffer("running_var", torch.ones(num_rows, num_features))
        self.register_buffer("num_batches_tracked", torch.zeros(num_rows, dtype=torch.long))

    @property
    def keeps_function(self) -> bool:
        """Evaluation with the moments of the replaced layer is that layer."""
        return True

    @torch.no_grad()
    def start(self, mean: Tensor, var: Tensor, batches: Tensor | None) -> None:
        """Every row becomes ``mean`` and ``var`` (C,), having seen ``batches`` of them."""
        self.running_mean.copy_(mean.expand_as(self.running_mean))
        self.running_var.copy_(var.expand_as(self.running_var))
        if batches is not None:
            self.num_batches_tracked.copy_(batches.expand_as(self.num_batches_tracked))

    @property
    def synchronizes(self) -> bool:
        """Whether moments of this step go on over several ranks."""
        return self.sync and several_ranks()

    def normalize_batch(
        self, x: Tensor, scale: Tensor, shift: Tensor, groups: Partition, rows: Partition | None
    ) -> Tensor:
        """Training: normalize with the moments of each group, and track them.

        The one place that chooses the way: torch's batch norm on all of a batch of one group, on
        all groups at once for small maps in equal parts, on runs for sorted channels_last batches
        and other small maps; arithmetic on rows for other maps; arithmetic
        on samples where each has a pair of its own, and under a compiler.

        Args:
            x: (N, C, *).
            scale: (R, C) with ``rows``, else (N or 1, C).
            shift: (R, C) with ``rows``, else (N or 1, C).
            groups: Samples that share moments.
            rows: Samples that share scale and shift; every group is a union of rows.
        """
        runs = None if rows is None else rows.runs
        if runs is not None and groups.runs is not None and self._native(x, groups.runs):
            if len(runs.labels) == 1 and self.running_mean.dtype == accumulate_dtype(x):
                pair = scale[runs.labels[0]], shift[runs.labels[0]]
                return self._normalize_single(x, *pair, groups.runs)
            if rows is groups and self._prefers_turns(x, groups.turns):
                return self._normalize_parts(normalize_turns, x, scale, shift, groups)
            if rows is groups and self._prefers_runs(x, runs):
                return self._normalize_parts(normalize_runs, x, scale, shift, groups)
        if rows is not None and self._by_rows(x, rows):
            grouping = Grouping(rows, groups, self.synchronizes)
            return grouped_norm(x, scale, shift, grouping, self.eps, self._track)
        if rows is not None:
            assert rows.group is not None
            scale, shift = (table.index_select(0, rows.group) for table in (scale, shift))
        shape = x.shape[:2]
        pool = Pool(groups, self.running_mean, self.running_var, self.stride, self.synchronizes)
        pooled = pooled_norm(x, scale.expand(shape), shift.expand(shape), pool, self.eps)
        self._track(pooled.mean, pooled.var, counts(pooled.values))
        return pooled.output

    def _native(self, x: Tensor, runs: Runs) -> bool:
        """Whether torch's batch norm can serve each run of samples."""
        if self.stride > 1 or self.momentum is None or x.dtype not in _NATIVE or self.synchronizes:
            return False
        return runs.shortest * _pixels(x) > 1  # a group of one value has no variance

    def _prefers_turns(self, x: Tensor, turns: Turns | None) -> bool:
        if turns is None or not x.is_contiguous():
            return False
        if self.running_mean.dtype != accumulate_dtype(x):
            return False
        return x.numel() < (_TURNS_BELOW if turns.order is None else _TURNS_BELOW_ARRANGED)

    def _prefers_runs(self, x: Tensor, runs: Runs) -> bool:
        if self.running_mean.dtype != accumulate_dtype(x):  # what the kernel takes with its out=
            return False
        if runs.order is not None:
            return x.numel() < _SORT_BELOW
        return is_channels_last(x) or x.numel() < _RUNS_BELOW

    def _by_rows(self, x: Tensor, rows: Partition) -> bool:
        """Whether `grouped_norm` serves: it knows no stride, and no group of a single value."""
        several = _pixels(x) > 1 and self.stride == 1
        # float64 is not there on Apple's GPUs.
        wide = rows.group is not None and x.device.type != "mps"
        return several and wide and not torch.compiler.is_compiling()

    def _normalize_single(self, x: Tensor, scale: Tensor, shift: Tensor, runs: Runs) -> Tensor:
        """All samples share moments, those of the one run, and one pair; (C,) each."""
        self.num_batches_tracked.add_(runs.seen)
        row = runs.labels[0]
        mean, var = self.running_mean[row], self.running_var[row]
        assert self.momentum is not None
        # Not F.batch_norm, which checks once more that there are several values.
        cudnn = torch.backends.cudnn.enabled
        return torch.batch_norm(x, scale, shift, mean, var, True, self.momentum, self.eps, cudnn)

    def _normalize_parts(
        self,
        normalize: Callable[[Tensor, Tensor, Tensor, Partition, Tracked], Tensor],
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        groups: Partition,
    ) -> Tensor:
        """Torch's batch norm on each part of the batch, by one of the two ways."""
        assert groups.runs is not None
        assert self.momentum is not None
        dtype = accumulate_dtype(x)
        tracked = Tracked(self.running_mean, self.running_var, self.momentum, self.eps)
        output = normalize(x, scale.to(dtype), shift.to(dtype), groups, tracked)
        self.num_batches_tracked.add_(groups.runs.seen)
        return output

    def evaluate_rows(self, x: Tensor, scale: Tensor, shift: Tensor, rows: Partition) -> Tensor:
        """Evaluation: scale and shift are those of rows, (R or 1, C)."""
        tables = self.running_mean, self.running_var, scale, shift
        assert rows.group is not None
        if rows.runs is not None and len(rows.runs.labels) == 1:
            row = rows.runs.labels[0]
            mean, var, scale, shift = (t[row if len(t) > 1 else 0] for t in tables)
            return F.batch_norm(x, mean, var, scale, shift, False, 0.0, self.eps)
        if not _is_traced() and way_of(x) == "rows" and _in_turns(rows.turns):
            shape, dtype = (rows.turns.num_groups, x.shape[1]), accumulate_dtype(x)
            mean, var, scale, shift = (t.to(dtype).expand(shape) for t in tables)
            return normalize_rows(x, scale, shift, mean, var, self.eps)
        given = (t.index_select(0, rows.group) if len(t) > 1 else t for t in tables)
        mean, var, scale, shift = given
        return self.normalize_tracked(x, scale, shift, mean, var)

    def normalize_tracked(
        self, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor
    ) -> Tensor:
        """Evaluation: given moments (N, C) or (1, C) of each sample, no state changes."""
        # Not len(): it is a number, which an export would keep as the one batch size there is.
        # Torch's batch norm has no gradient for moments, which those of a mixture may want.
        wanted = torch.is_grad_enabled() and (mean.requires_grad or var.requires_grad)
        if scale.shape[0] == mean.shape[0] == 1 and not wanted:
            return F.batch_norm(x, mean[0], var[0], scale[0], shift[0], False, 0.0, self.eps)
        shape, dtype = x.shape[:2], accumulate_dtype(x)
        scale, shift, mean, var = (t.to(dtype).expand(shape) for t in (scale, shift, mean, var))
        if not _is_traced() and way_of(x) == "rows":
            return normalize_rows(x, scale, shift, mean, var, self.eps)
        per_sample = torch.rsqrt(var + self.eps) * scale
        return scaled(x, per_sample, torch.addcmul(shift, mean, per_sample, value=-1))

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, known: Counts) -> None:
        """Move the running moments of groups of several values towards (K, C) of this batch."""
        self.num_batches_tracked.add_(known.steps)
        factor: Tensor | float
        if self.momentum is None:
            seen_so_far = self.num_batches_tracked.clamp(min=1)[:, None]
            factor = seen_so_far.to(self.running_mean.dtype).reciprocal()
        else:
            factor = self.momentum
        # A weight of zero leaves absent rows as they are, bit for bit.
        # Widened first: 0.1 in float32 would move float64 moments by 1e-9 of their size.
        weight = known.seen.to(self.running_mean.dtype) * factor
        for running, batch in ((self.running_mean, mean), (self.running_var, var * known.unbiased)):
            # Torch's batch norm of an earlier batch, whose backward is still to come, has kept
            # these buffers, though it does not read them; as its own kernel does, this moves them
            # without autograd noticing.
            moved = running if torch.compiler.is_compiling() else running.data
            moved.lerp_(batch.to(running.dtype), weight)

    def extra_repr(self) -> str:
        """Shapes and constants, for ``print(model)``."""
        rows, features = self.running_mean.shape
        return f"{features}, rows={rows}, momentum={self.momentum}, eps={self.eps}"


def _is_traced() -> bool:
    """Whether someone follows the operations: autograd or a compiler."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def _in_turns(turns: Turns | None) -> TypeGuard[Turns]:
    """Whether the groups take turns as the batch is."""
    return turns is not None and turns.order is None


def _pixels(x: Tensor) -> int:
    return x.shape[2:].numel()


def checked_stride(stride: int) -> int:
    """``stride``, at least 1.

    Raises:
        DomainNormError: It is smaller.
    """
    if stride < 1:
        raise DomainNormError(f"stride: got {stride}, expected 1 (every pixel) or more")
    return stride
