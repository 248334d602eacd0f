"""Moments of a small copy of the full image, for its tiles."""

from __future__ import annotations

from torch import Tensor

from domainnorm.condition import Condition, RecordedMoments
from domainnorm.errors import ConditionError
from domainnorm.norms.kernels.mixing import Moments, normalize
from domainnorm.norms.kernels.per_sample import accumulate_dtype
from domainnorm.norms.statistics.instance import InstanceStatistics
from domainnorm.registry import register


@register
class ThumbnailStatistics(InstanceStatistics):
    """Tiles of a large image are normalized with the moments that its thumbnail had at this layer.

    ``y = scale · (x - mean_thumbnail) / sqrt(var_thumbnail + eps) + shift`` when the condition has
    a thumbnail; all tiles then share moments, and no seams appear. Without one, instance statistics
    of ``x``. No state; no gradient flows through the thumbnail.

    Args:
        num_features: C; the moments do not depend on it.
        num_domains: D; the moments do not depend on it.
        eps: Added to the variance.

    Reference:
        Chen et al., Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance
        Normalization, AAAI 2022, arXiv:2103.11784. Differs: the variance is biased, where the
        authors' code (czczup/URST) takes the unbiased one.
    """

    def __init__(self, num_features: int, num_domains: int, *, eps: float = 1e-5) -> None:
        super().__init__(num_features, num_domains, eps=eps)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C).

        Raises:
            ConditionError: A thumbnail that lacks this layer, or is of another number of images.
        """
        if condition.thumbnail is None:
            return super().forward(x, scale, shift, condition)
        recorded = self._recorded(condition.thumbnail, x)
        return normalize(x, recorded, scale, shift, self.eps)

    def _recorded(self, thumbnail: RecordedMoments, x: Tensor) -> Moments:
        if self.path not in thumbnail:
            raise ConditionError(
                f"thumbnail: no moments of this layer among {len(thumbnail)} recorded ones; "
                "record them with this very model, model.record_moments(small_image)"
            )
        mean, var = thumbnail[self.path]
        if mean.shape not in ((1, x.shape[1]), tuple(x.shape[:2])):
            raise ConditionError(
                f"thumbnail: moments of shape {tuple(mean.shape)} for an input {tuple(x.shape)}, "
                f"expected one row, or one per tile, of {x.shape[1]} channels"
            )
        dtype = accumulate_dtype(x)
        return Moments(mean.to(x.device, dtype), var.to(x.device, dtype))
