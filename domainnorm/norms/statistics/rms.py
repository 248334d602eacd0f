"""Root mean square of the channels at each position."""

from __future__ import annotations

from typing import Any

from domainnorm.norms.statistics.layer import LayerStatistics
from domainnorm.registry import register


@register
class RMSStatistics(LayerStatistics):
    """Each position of each sample is divided by the root mean square of its channels.

    ``y = scale · x / sqrt(avg over channels of x² + eps) + shift``: layer statistics of which
    nothing is centred. The same in training and evaluation; no state.

    Args:
        num_features: C; the moments do not depend on it.
        num_domains: D; the moments do not depend on it.
        tokens: Whether channels are the last axis, (N, L, C) or (N, H, W, C), instead of (N, C, *).
        eps: Added to the mean square.

    Reference:
        Zhang and Sennrich, Root Mean Square Layer Normalization, NeurIPS 2019, arXiv:1910.07467,
        eq. 4. Differs: eps, and a shift that starts at zero.
    """

    centred = False

    def __init__(
        self, num_features: int, num_domains: int, *, eps: float = 1e-6, **options: Any
    ) -> None:
        super().__init__(num_features, num_domains, eps=eps, **options)
