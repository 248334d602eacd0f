"""Moments of groups of channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.norms.kernels.mixing import normalize, pool_channels, sample_moments
from domainnorm.norms.kernels.per_sample import group_norm_serves, spread
from domainnorm.norms.statistics.base import Statistics
from domainnorm.registry import register


@register
class GroupStatistics(Statistics):
    """Each group of channels of each sample is normalized with its own moments.

    ``mean[n, g] = avg over pixels and the channels of group g of x[n]``, in training and evaluation
    alike; no state.

    Args:
        num_features: C.
        num_domains: D; the moments do not depend on it.
        num_groups: G, a divisor of C; 1 takes all channels and pixels of a sample together.
        eps: Added to the variance.

    Raises:
        DomainNormError: ``num_groups`` does not divide ``num_features``.

    Reference:
        Wu and He, Group Normalization, ECCV 2018, arXiv:1803.08494, eq. 7.
    """

    def __init__(
        self, num_features: int, num_domains: int, *, num_groups: int = 32, eps: float = 1e-5
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_features % num_groups:
            raise DomainNormError(
                f"num_groups: {num_groups} groups of {num_features} channels are not of equal "
                "size; choose a divisor"
            )
        self.num_groups = num_groups
        self.eps = eps

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C).

        Raises:
            ConditionError: A group of one value per sample: it would be normalized to zero.
        """
        num_samples, num_features = x.shape[:2]
        if x.shape[1:].numel() == self.num_groups:
            raise ConditionError(
                f"group statistics of one value, {self.num_groups} groups of {tuple(x.shape)}: "
                "every output would be the shift alone; use fewer groups or a larger image"
            )
        if torch.compiler.is_exporting():  # the group count below would bake in the batch size
            normed = F.group_norm(x, self.num_groups, eps=self.eps)
            return torch.addcmul(spread(shift, x), normed, spread(scale, x)).to(x.dtype)
        if not group_norm_serves(x):
            pooled = pool_channels(sample_moments(x), self.num_groups)
            return normalize(x, pooled, scale, shift, self.eps)
        if scale.shape[0] == 1:
            return F.group_norm(x, self.num_groups, scale[0], shift[0], self.eps)
        # One sample of N·C channels: each with a weight of its own, so one pass does.
        output = F.group_norm(
            x.reshape(1, num_samples * num_features, *x.shape[2:]),
            num_samples * self.num_groups,
            scale.reshape(-1),
            shift.reshape(-1),
            self.eps,
        )
        # A plain view would send the in-place activations of timm through a copy.
        result: Tensor = torch.ops.aten._unsafe_view(output, list(x.shape))
        return result

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"num_groups={self.num_groups}, eps={self.eps}"
