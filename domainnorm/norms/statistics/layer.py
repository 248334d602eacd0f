"""Moments of the channels at each position."""

from __future__ import annotations

from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.norms.kernels.positions import position_norm
from domainnorm.norms.statistics.base import Statistics
from domainnorm.registry import register


@register
class LayerStatistics(Statistics):
    """Each position of each sample is normalized with its own moments over the channels.

    ``mean[n, l] = avg over channels of x[n, :, l]``, in training and evaluation alike; no state.

    Args:
        num_features: C; the moments do not depend on it.
        num_domains: D; the moments do not depend on it.
        tokens: Whether channels are the last axis, (N, L, C) or (N, H, W, C), instead of (N, C, *).
        eps: Added to the variance.

    Reference:
        Ba et al., Layer Normalization, 2016, arXiv:1607.06450, eq. 4; over the channels of one
        position as in transformers and ConvNeXt (Liu et al., CVPR 2022, arXiv:2201.03545).
    """

    centred: bool = True

    def __init__(
        self, num_features: int, num_domains: int, *, tokens: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.eps = eps

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` and modulate it with ``scale``, ``shift`` (N or 1, C)."""
        axis = -1 if self.tokens else 1
        return position_norm(x, scale, shift, eps=self.eps, axis=axis, centred=self.centred)

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"tokens={self.tokens}, eps={self.eps}"
