"""A scale and shift for each pixel, from a map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.norms.kernels.per_sample import like
from domainnorm.norms.layer import Modulation
from domainnorm.registry import register

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@register
class SpatialModulation(Modulation):
    """Two convolutions turn a map (layout, mask, guidance) into the scale and shift of each pixel.

    ``(scale, shift)[n, :, p] = (scale, shift) + conv(relu(conv(map[n])))[:, p]``, with the map
    resized to the feature by nearest neighbour, which keeps labels whole. A map of class labels is
    passed one-hot, with ``map_channels`` classes.

    Args:
        num_features: C.
        num_domains: D; the maps do not depend on it.
        map_channels: M, channels of the map, at least 1.
        hidden: Channels between the convolutions, at least 1.
        spatial_axes: 1 for (N, C, L), 2 for (N, C, H, W), 3 for (N, C, D, H, W) features.

    Shape:
        ``scale``, ``shift``: (1, C), starting at 1 and 0; the last convolution starts at zero, so
        every pixel starts with this pair.

    Raises:
        DomainNormError: Another number of axes.

    Reference:
        Park et al., Semantic Image Synthesis with Spatially-Adaptive Normalization, CVPR 2019,
        arXiv:1903.07291, eq. 1.
        Differs: the convolutions give the difference to a shared pair.
    """

    needs = "map"

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        *,
        map_channels: int = 1,
        hidden: int = 32,
        spatial_axes: int = 2,
    ) -> None:
        super().__init__()
        if spatial_axes not in _CONVOLUTIONS:
            raise DomainNormError(f"spatial_axes: got {spatial_axes}, expected 1, 2 or 3")
        convolution = _CONVOLUTIONS[spatial_axes]
        self.spatial_axes = spatial_axes
        self.scale = nn.Parameter(torch.ones(1, num_features))
        self.shift = nn.Parameter(torch.zeros(1, num_features))
        self.first = convolution(map_channels, hidden, 3, padding=1)
        self.last = convolution(hidden, 2 * num_features, 3, padding=1)
        self._zero_last()

    def forward(self, condition: Condition, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of each pixel, (N, C, *) each, in the memory layout of ``x``.

        Raises:
            ConditionError: No map, one of other channels or axes, or features of other axes.
        """
        guide = self._map(condition, x)
        guide = F.interpolate(guide, size=x.shape[2:], mode="nearest")
        difference = self.last(torch.relu(self.first(guide)))
        axes = (1,) * self.spatial_axes
        scale, shift = (
            base.reshape(1, -1, *axes) + half
            for base, half in zip((self.scale, self.shift), difference.chunk(2, dim=1), strict=True)
        )
        return like(scale, x), like(shift, x)

    def _map(self, condition: Condition, x: Tensor) -> Tensor:
        channels = self.first.in_channels
        if condition.map is None:
            raise ConditionError(
                f"spatial modulation needs a map (N, {channels}, ...); pass map= to the model"
            )
        if x.ndim != self.spatial_axes + 2:
            raise ConditionError(
                f"spatial modulation with spatial_axes={self.spatial_axes} got features "
                f"{tuple(x.shape)}; set the option to their number of spatial axes, or leave this "
                "layer out with `where`"
            )
        of_axes = condition.map.ndim == x.ndim and condition.map.shape[1] == channels
        if not of_axes or 0 in condition.map.shape[2:]:
            expected = ", ".join((str(len(x)), str(channels), *["any"] * self.spatial_axes))
            raise ConditionError(
                f"map has shape {tuple(condition.map.shape)}, expected ({expected}); the option "
                "map_channels is its number of channels"
            )
        return condition.map.to(self.first.weight.dtype)

    def _zero_last(self) -> None:
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    @torch.no_grad()
    def start(self, scale: Tensor, shift: Tensor) -> None:
        """The shared pair becomes ``scale`` and ``shift`` (C,), all differences zero."""
        self.scale.copy_(scale.expand_as(self.scale))
        self.shift.copy_(shift.expand_as(self.shift))
        self._zero_last()
