"""Running moments, one row per group: what domain and batch statistics share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.errors import DomainNormError
from domainnorm.norms.base import Statistics
from domainnorm.norms.layout import (
    accumulate_dtype,
    is_channels_last,
    normalize_rows,
    spread,
    way_of,
)
from domainnorm.norms.partition import Partition
from domainnorm.norms.pooled import Pool, Pooled, pooled_norm
from domainnorm.norms.ranks import several_ranks
from domainnorm.norms.runs import normalize_runs

# What torch's batch norm kernel takes beside float32 or float64 scales on the CPU.
_NATIVE = (torch.float32, torch.float64, torch.bfloat16)


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

    Shape:
        ``running_mean``, ``running_var``: (R, C). ``num_batches_tracked``: (R,), batches each row
        has seen.
    """

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
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.stride = checked_stride(stride)
        self.sync = sync
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

    def normalize_groups(
        self, x: Tensor, scale: Tensor, shift: Tensor, groups: Partition
    ) -> Tensor:
        """Training: normalize with the moments of each group, and track them.

        ``scale``, ``shift``: (N or 1, C).
        """
        row = self._single_row(x, scale, shift, groups)
        if row is not None:
            return self._normalize_single(x, scale[0], shift[0], row)
        if self._sorted(x, groups):
            return self._normalize_sorted(x, scale, shift, groups)
        shape = x.shape[:2]
        pool = Pool(groups, self.running_mean, self.running_var, self.stride, self.synchronizes)
        pooled = pooled_norm(x, scale.expand(shape), shift.expand(shape), pool, self.eps)
        self._track(pooled)
        return pooled.output

    def _single_row(self, x: Tensor, scale: Tensor, shift: Tensor, groups: Partition) -> int | None:
        """The one group of the batch, where torch's own batch norm serves, or None."""
        if groups.runs is None or len(groups.runs.labels) != 1 or x[:, 0].numel() == 1:
            return None
        # Rows that are one row in memory: expanded, or gathered for a batch of one domain.
        shared = len(scale) == len(shift) == 1 or (scale.stride(0) == 0 and shift.stride(0) == 0)
        if self.stride > 1 or self.synchronizes or not shared:
            return None
        return groups.runs.labels[0]

    def _sorted(self, x: Tensor, groups: Partition) -> bool:
        """Whether each group is one run of samples that share scale and shift.

        For channels_last alone: contiguous maps are faster by way of rows.
        """
        runs = groups.runs
        if runs is None or not self.rows_by_group or x.dtype not in _NATIVE:
            return False
        if not is_channels_last(x):
            return False
        values = min(runs.lengths, default=0) * x[0, :1].numel()
        plain = self.stride == 1 and not self.synchronizes and self.momentum is not None
        num_runs = len(runs.labels)
        return plain and values > 1 and 1 < num_runs == len(set(runs.labels))

    def _normalize_sorted(
        self, x: Tensor, scale: Tensor, shift: Tensor, groups: Partition
    ) -> Tensor:
        runs = groups.runs
        assert runs is not None
        assert self.momentum is not None
        dtype = accumulate_dtype(x)
        scale, shift = (_of_runs(table, runs.starts).to(dtype) for table in (scale, shift))
        moments = (self.running_mean, self.running_var, self.momentum, self.eps)
        output = normalize_runs(x, scale, shift, groups, moments)
        self.num_batches_tracked[runs.group] += 1
        return output

    def _normalize_single(self, x: Tensor, scale: Tensor, shift: Tensor, row: int) -> Tensor:
        """Training: all samples belong to one row, so torch's own batch norm serves; (C,) each."""
        mean, var = self.running_mean[row], self.running_var[row]
        self.num_batches_tracked[row] += 1
        factor = self.momentum
        if factor is None:
            factor = 1.0 / float(self.num_batches_tracked[row])
        return F.batch_norm(x, mean, var, scale, shift, True, factor, self.eps)

    def normalize_tracked(
        self, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor
    ) -> Tensor:
        """Evaluation: given moments (N, C) or (1, C) of each sample, no state changes."""
        # Not len(): it is a number, which an export would keep as the one batch size there is.
        if scale.shape[0] == mean.shape[0] == 1:
            return F.batch_norm(x, mean[0], var[0], scale[0], shift[0], False, 0.0, self.eps)
        shape, dtype = x.shape[:2], accumulate_dtype(x)
        scale, shift, mean, var = (t.to(dtype).expand(shape) for t in (scale, shift, mean, var))
        traced = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if not traced and way_of(x) == "rows":
            return normalize_rows(x, scale, shift, mean, var, self.eps)
        per_sample = torch.rsqrt(var + self.eps) * scale
        offset = torch.addcmul(shift, mean, per_sample, value=-1).to(x.dtype)
        return torch.addcmul(spread(offset, x), x, spread(per_sample.to(x.dtype), x))

    @torch.no_grad()
    def _track(self, pooled: Pooled) -> None:
        values = pooled.values.to(self.running_mean.dtype)
        seen = values > 1  # (R, 1)
        self.num_batches_tracked += seen[:, 0]
        factor: Tensor | float
        if self.momentum is None:
            factor = self.num_batches_tracked.clamp(min=1).reciprocal()[:, None]
        else:
            factor = self.momentum
        # A weight of zero leaves absent rows as they are, bit for bit.
        weight = (seen * factor).to(values.dtype)
        unbiased = pooled.var * (values / (values - 1).clamp(min=1))
        for running, batch in ((self.running_mean, pooled.mean), (self.running_var, unbiased)):
            running.lerp_(batch.to(running.dtype), weight)

    def extra_repr(self) -> str:
        """Shapes and constants, for ``print(model)``."""
        rows, features = self.running_mean.shape
        return f"{features}, rows={rows}, momentum={self.momentum}, eps={self.eps}"


def _of_runs(per_sample: Tensor, starts: Tensor) -> Tensor:
    """(N or 1, C) -> (R, C): the row of the first sample of each run."""
    if len(per_sample) == 1:
        return per_sample.expand(len(starts), -1)
    return per_sample.index_select(0, starts)


def checked_stride(stride: int) -> int:
    """``stride``, at least 1.

    Raises:
        DomainNormError: It is smaller.
    """
    if stride < 1:
        raise DomainNormError(f"stride: got {stride}, expected 1 (every pixel) or more")
    return stride
