"""Root mean square of the channels at each position."""

from __future__ import annotations

from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.norms.base import Statistics
from domainnorm.norms.positions import position_norm
from domainnorm.registry import register


@register
class RMSStatistics(Statistics):
    """Each position of each sample is divided by the root mean square of its channels.

    ``y = scale · x / sqrt(avg over channels of x² + eps) + shift``: nothing is centred. The same
    in training and evaluation; no state.

    Args:
        num_features: C; the moments do not depend on it.
        num_domains: D; the moments do not depend on it.
        tokens: Whether channels are the last axis, (N, L, C) or (N, H, W, C), instead of (N, C, *).
        eps: Added to the mean square.

    Reference:
        Zhang and Sennrich, Root Mean Square Layer Normalization, NeurIPS 2019, arXiv:1910.07467,
        eq. 4. Differs: eps, and a shift that starts at zero.
    """

    def __init__(
        self, num_features: int, num_domains: int, *, tokens: bool = False, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.eps = eps

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` and modulate it with ``scale``, ``shift`` (N or 1, C)."""
        axis = -1 if self.tokens else 1
        return position_norm(x, scale, shift, eps=self.eps, axis=axis, centred=False)

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"tokens={self.tokens}, eps={self.eps}"
