"""Moments of the whole batch."""

from __future__ import annotations

from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.norms.running import RunningMoments
from domainnorm.registry import register


@register
class BatchStatistics(RunningMoments):
    """All samples are normalized with the moments of the whole batch, whatever their domain.

    Training: ``mean = avg over samples and pixels of x``, tracked in one row of running moments.
    Evaluation: running moments.

    Args:
        num_features: C.
        num_domains: D; the moments do not depend on it.
        momentum: Weight of the new batch in [0, 1]; None for the cumulative average.
        eps: Added to the variance.

    Reference:
        Ioffe and Szegedy, Batch Normalization, ICML 2015, arXiv:1502.03167, alg. 1 and 2.
    """

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(num_features, 1, momentum=momentum, eps=eps)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C)."""
        if not self.training:
            mean, var = self.running_mean, self.running_var
            return self.normalize_tracked(x, scale, shift, mean, var)
        if len(scale) == 1 and x[:, 0].numel() > 1:
            return self.normalize_single(x, scale[0], shift[0], 0)
        expanded = (len(x), x.shape[1])
        group = self.num_batches_tracked.new_zeros(len(x))
        return self.normalize_groups(x, scale.expand(expanded), shift.expand(expanded), group)
