"""Running moments, one row per group: what domain and batch statistics share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.norms.base import Statistics
from domainnorm.norms.layout import affine, is_channels_last
from domainnorm.norms.pooled import Pool, Pooled, pooled_norm


class RunningMoments(Statistics):
    """Normalizes with the moments of groups of samples, and keeps running ones for evaluation.

    Training: moments of the group in this batch; ``running += momentum · (batch - running)`` for
    the groups that are present, with the unbiased variance, as in PyTorch. A group that holds a
    single value per channel has no variance: its running moments normalize it and stay as they
    are. Evaluation: running moments.

    Args:
        num_features: C.
        num_rows: Rows of running moments, R.
        momentum: Weight of the new batch in [0, 1]; None for the cumulative average.
        eps: Added to the variance.

    Shape:
        ``running_mean``, ``running_var``: (R, C). ``num_batches_tracked``: (R,), batches each row
        has seen.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, num_features: int, num_rows: int, *, momentum: float | None = 0.1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(num_rows, num_features))
        self.register_buffer("running_var", torch.ones(num_rows, num_features))
        self.register_buffer("num_batches_tracked", torch.zeros(num_rows, dtype=torch.long))

    @torch.no_grad()
    def start(self, mean: Tensor, var: Tensor, batches: Tensor | None) -> None:
        """Every row becomes ``mean`` and ``var`` (C,), having seen ``batches`` of them."""
        self.running_mean.copy_(mean.expand_as(self.running_mean))
        self.running_var.copy_(var.expand_as(self.running_var))
        if batches is not None:
            self.num_batches_tracked.copy_(batches.expand_as(self.num_batches_tracked))

    def normalize_groups(self, x: Tensor, scale: Tensor, shift: Tensor, group: Tensor) -> Tensor:
        """Training: normalize with the moments of each group (N,), and track them."""
        pool = Pool(group, len(self.running_mean), self.running_mean, self.running_var)
        pooled = pooled_norm(x, scale, shift, pool, self.eps)
        self._track(pooled)
        return pooled.output

    def normalize_single(self, x: Tensor, scale: Tensor, shift: Tensor, row: int) -> Tensor:
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
        if len(scale) == len(mean) == 1:
            return F.batch_norm(x, mean[0], var[0], scale[0], shift[0], False, 0.0, self.eps)
        per_sample = torch.rsqrt(var.to(scale.dtype) + self.eps) * scale
        offset = shift - mean.to(scale.dtype) * per_sample
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_channels_last(x):
            return _differentiable_affine(x, per_sample, offset)
        return affine(x, per_sample, offset)

    @torch.no_grad()
    def _track(self, pooled: Pooled) -> None:
        values = pooled.values
        seen = values > 1  # (R, 1)
        self.num_batches_tracked += seen[:, 0]
        unbiased = pooled.var * (values / (values - 1).clamp(min=1))
        factor: Tensor | float
        if self.momentum is None:
            factor = self.num_batches_tracked.clamp(min=1).reciprocal()[:, None]
        else:
            factor = self.momentum
        for running, batch in ((self.running_mean, pooled.mean), (self.running_var, unbiased)):
            moved = running + factor * (batch.to(running.dtype) - running)
            running.copy_(torch.where(seen, moved, running))

    def extra_repr(self) -> str:
        """Shapes and constants, for ``print(model)``."""
        rows, features = self.running_mean.shape
        return f"{features}, rows={rows}, momentum={self.momentum}, eps={self.eps}"


def _differentiable_affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    axes = (1,) * (x.ndim - 2)
    scale, shift = (t.to(x.dtype).reshape(*t.shape, *axes) for t in (scale, shift))
    return torch.addcmul(shift, x, scale)
