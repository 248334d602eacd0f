"""Statistics of a sample itself, or of a small copy of the image that it is a tile of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.condition import Condition, RecordedMoments
from domainnorm.errors import ConditionError
from domainnorm.norms.kernels.partition import own_groups
from domainnorm.norms.kernels.per_sample import (
    accumulate_dtype,
    group_norm_of_samples,
    group_norm_serves,
    spread,
    strided,
)
from domainnorm.norms.kernels.pooled import Pool, pooled_norm
from domainnorm.norms.kernels.sample_moments import Moments, normalize
from domainnorm.norms.layer import Statistics
from domainnorm.registry import register


@register
class InstanceStatistics(Statistics):
    """Each sample is normalized with its own moments over its pixels.

    ``mean[n] = avg over pixels of x[n]``, in training and evaluation alike; no state.

    Args:
        num_features: C; the moments do not depend on it.
        num_domains: D; the moments do not depend on it.
        eps: Added to the variance.
        stride: Moments use every ``stride``-th pixel along each axis, at least 1.

    Reference:
        Ulyanov et al., Instance Normalization, 2016, arXiv:1607.08022, eq. 2.
    """

    def __init__(
        self, num_features: int, num_domains: int, *, eps: float = 1e-5, stride: int = 1
    ) -> None:
        super().__init__()
        self.eps = eps
        self.stride = stride

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
        return group_norm_of_samples(x, num_features, scale, shift, self.eps)

    def _pooled(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        pool = Pool(own_groups(x.shape[0], x.device), stride=self.stride)
        return pooled_norm(x, scale, shift, pool, self.eps).output

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"eps={self.eps}"


@register("thumbnail")
class ThumbnailStatistics(InstanceStatistics):
    """Tiles of a large image are normalized with the moments of its thumbnail at this layer.

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
