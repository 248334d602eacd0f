"""Standard deviation of the channels at each position."""

from __future__ import annotations

import torch
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.errors import DomainNormError
from domainnorm.norms.kernels.per_sample import accumulate_dtype
from domainnorm.norms.statistics.base import Statistics
from domainnorm.registry import register


@register
class DeviationStatistics(Statistics):
    """Each position of each sample is divided by the standard deviation of its channels.

    ``y = scale · x / sqrt(var + eps) + shift`` with the unbiased variance over the channels; the
    mean stays in x. The same in training and evaluation; no state.

    Args:
        num_features: C, at least 2.
        num_domains: D; the moments do not depend on it.
        tokens: Whether channels are the last axis, (N, L, C) or (N, H, W, C), instead of (N, C, *).
        eps: Added to the variance.

    Raises:
        DomainNormError: A single channel, which has no variance.

    Reference:
        timm's ``SimpleNorm`` (pytorch-image-models, timm/layers/norm.py). Differs: a shift that
        starts at zero.
    """

    def __init__(
        self, num_features: int, num_domains: int, *, tokens: bool = False, eps: float = 1e-6
    ) -> None:
        super().__init__()
        if num_features < 2:
            raise DomainNormError(
                f"num_features: {num_features} channel has no standard deviation over channels"
            )
        self.tokens = tokens
        self.eps = eps

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` and modulate it with ``scale``, ``shift`` (N or 1, C)."""
        axis = -1 if self.tokens else 1
        wide = x.to(accumulate_dtype(x))
        rstd = torch.rsqrt(wide.var(axis, keepdim=True) + self.eps)
        shape = [1] * x.ndim
        shape[0], shape[axis] = -1, x.shape[axis]
        return (wide * rstd * scale.reshape(shape) + shift.reshape(shape)).to(x.dtype)

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"tokens={self.tokens}, eps={self.eps}"
