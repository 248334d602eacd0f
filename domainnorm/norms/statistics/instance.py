"""Moments of the sample itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.norms.kernels.partition import own_groups
from domainnorm.norms.kernels.per_sample import group_norm_serves, spread, strided
from domainnorm.norms.kernels.pooled import Pool, pooled_norm
from domainnorm.norms.statistics.base import Statistics, checked_stride
from domainnorm.registry import register


@register
class InstanceStatistics(Statistics):
    """Each sample is normalized with its own moments over its pixels.

    ``mean[n] = avg over pixels of x[n]``, in training and evaluation alike; no state.

    Args:
        num_features: C; the moments do not depend on it.
        num_domains: D; the moments do not depend on it.
        eps: Added to the variance.
        stride: Moments are those of every ``stride``-th pixel along each axis, ≥ 1.

    Reference:
        Ulyanov et al., Instance Normalization, 2016, arXiv:1607.08022, eq. 2.
    """

    def __init__(
        self, num_features: int, num_domains: int, *, eps: float = 1e-5, stride: int = 1
    ) -> None:
        super().__init__()
        self.eps = eps
        self.stride = checked_stride(stride)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C).

        Raises:
            ConditionError: A map of one element per channel: it would be normalized to zero.
        """
        num_samples, num_features = x.shape[:2]
        if x.ndim == 2 or strided(x, self.stride).shape[2:].numel() == 1:
            raise ConditionError(
                f"instance statistics of a map with one element per channel, {tuple(x.shape)}: "
                "every output would be the shift alone; use domain statistics here (norm 'dsbn'), "
                "a larger image, or leave this layer out with `where`"
            )
        scale, shift = scale.expand(num_samples, -1), shift.expand(num_samples, -1)
        if self.stride > 1:
            return self._pooled(x, scale, shift)
        if torch.compiler.is_exporting():  # the group count below would bake in the batch size
            return torch.addcmul(
                spread(shift, x), F.instance_norm(x, eps=self.eps), spread(scale, x)
            ).to(x.dtype)
        if not group_norm_serves(x):
            return self._pooled(x, scale, shift)
        rows = num_samples * num_features
        output = F.group_norm(
            x.reshape(1, rows, *x.shape[2:]), rows, scale.reshape(-1), shift.reshape(-1), self.eps
        )
        # A plain view would send the in-place activations of timm through a copy.
        result: Tensor = torch.ops.aten._unsafe_view(output, list(x.shape))
        return result

    def _pooled(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        pool = Pool(own_groups(x.shape[0], x.device), stride=self.stride)
        return pooled_norm(x, scale, shift, pool, self.eps).output

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"eps={self.eps}"
