"""The domain from the style of the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from domainnorm.encoders.base import DomainEncoder
from domainnorm.encoders.styles import map_moments, shrunk, style_features
from domainnorm.registry import register


@register
class StyleEncoder(DomainEncoder):
    """Colour moments, sharpness, spectrum, and moments of the backbone's first convolution.

    The cheapest encoder, for domains that differ in how they look: stains, cameras, scanners,
    light. It learns in seconds, since what it looks at has no weights of its own.

    Args:
        num_domains: D.
        network: The backbone; its first convolution is shared, not copied. None, or a network
            without one, leaves its moments out.
        in_chans: Channels of the images.
        hidden: Width of the MLP.
        embedding: Size of the embedding, E.

    Reference:
        Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance
        Normalization, ICCV 2017, arXiv:1703.06868, sec. 3 (style as moments of features).
    """

    def __init__(
        self,
        num_domains: int,
        network: nn.Module | None = None,
        in_chans: int = 3,
        *,
        hidden: int = 64,
        embedding: int = 16,
    ) -> None:
        stem = _first_convolution(network, in_chans)
        size = 3 * in_chans + in_chans * (in_chans - 1) // 2 + 10
        size += 0 if stem is None else 2 * stem.out_channels
        super().__init__(num_domains, size, hidden=hidden, embedding=embedding)
        # In a tuple: a child would put the backbone's weights into the state a second time.
        self._stem = (stem,)

    def features(self, image: Tensor) -> Tensor:
        """Style of images (N, C, H, W), (N, F)."""
        small, stem = shrunk(image), self._stem[0]
        found = style_features(image, small)
        if stem is None:
            return found
        maps = stem(small.to(stem.weight.dtype)).float()
        return torch.cat([found, map_moments(maps)], 1)


def _first_convolution(network: nn.Module | None, in_chans: int) -> nn.Conv2d | None:
    """The first convolution of a network, if it takes images."""
    for module in network.modules() if network is not None else ():
        if isinstance(module, nn.Conv2d):
            return module if module.in_channels == in_chans else None
    return None
