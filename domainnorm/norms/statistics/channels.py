"""Statistics over the channels of a sample: at each position, or of groups of channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.norms.kernels.per_sample import (
    accumulate_dtype,
    group_norm_of_samples,
    group_norm_serves,
    spread,
)
from domainnorm.norms.kernels.positions import position_norm
from domainnorm.norms.kernels.sample_moments import normalize, pool_channels, sample_moments
from domainnorm.norms.layer import Statistics
from domainnorm.registry import register


@register("layer")
class LayerStatistics(Statistics):
    """Each position of a sample is normalized with its own moments over the channels.

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


@register("rms")
class RMSStatistics(LayerStatistics):
    """Each position of a sample is divided by the root mean square of its channels.

    ``y = scale · x / sqrt(avg over channels of x² + eps) + shift``: layer statistics without
    centring. The same in training and evaluation; no state.

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


@register("deviation")
class DeviationStatistics(LayerStatistics):
    """Each position of a sample is divided by the standard deviation of its channels.

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
        self, num_features: int, num_domains: int, *, eps: float = 1e-6, **options: Any
    ) -> None:
        if num_features < 2:
            raise DomainNormError(
                f"num_features: {num_features} channel has no standard deviation over channels"
            )
        super().__init__(num_features, num_domains, eps=eps, **options)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` and modulate it with ``scale``, ``shift`` (N or 1, C)."""
        axis = -1 if self.tokens else 1
        wide = x.to(accumulate_dtype(x))
        rstd = torch.rsqrt(wide.var(axis, keepdim=True) + self.eps)
        return (wide * rstd * spread(scale, x, axis) + spread(shift, x, axis)).to(x.dtype)


@register("group")
class GroupStatistics(Statistics):
    """Each group of channels of a sample is normalized with its own moments.

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
        check_groups(num_groups, num_features)
        self.num_groups = num_groups
        self.eps = eps

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` (N, C, *) and modulate it with ``scale``, ``shift`` (N or 1, C).

        Raises:
            ConditionError: A group of one value per sample: it would be normalized to zero.
        """
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
        return group_norm_of_samples(x, self.num_groups, scale, shift, self.eps)

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"num_groups={self.num_groups}, eps={self.eps}"


def check_groups(num_groups: int, num_features: int) -> None:
    """Refuse a number of groups that does not divide the channels."""
    if num_groups < 1 or num_features % num_groups:
        raise DomainNormError(
            f"num_groups: {num_groups} groups of {num_features} channels are not of equal "
            "size; choose a divisor"
        )
