"""Small network of its own that tells the domain."""

from __future__ import annotations

from typing import Any

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.encoders.base import DomainEncoder, check_sizes
from domainnorm.errors import UnknownNameError, similar
from domainnorm.registry import register

# What is offered where no name of timm is like the one asked for.
_SMALL = ("test_resnet", "resnet10t", "resnet18", "mobilenetv3_small_050")


@register
class CNNEncoder(DomainEncoder):
    """A small timm network on a reduced image, for domains that differ in more than style.

    It is trained on the domains of images, from scratch or from pretrained weights; this takes
    minutes.

    Args:
        num_domains: D.
        network: Not used.
        in_chans: Channels of the images.
        backbone: A timm architecture.
        pretrained: Start from timm's pretrained weights.
        size: Longer side of the reduced image, in pixels.
        **options: See `DomainEncoder`.

    Raises:
        UnknownNameError: No such architecture; the message gives the nearest.
        DomainNormError: A size below 1.
    """

    learns_features: bool = True

    def __init__(
        self,
        num_domains: int,
        network: nn.Module | None = None,
        in_chans: int = 3,
        *,
        backbone: str = "test_resnet",
        pretrained: bool = False,
        size: int = 64,
        **options: Any,
    ) -> None:
        check_sizes(size=size)
        if not timm.is_model(backbone):
            known = similar(backbone, timm.list_models(), _SMALL)
            raise UnknownNameError("timm architecture", backbone, known)
        cnn = timm.create_model(backbone, pretrained=pretrained, num_classes=0, in_chans=in_chans)
        super().__init__(num_domains, cnn.num_features, **options)
        self.cnn = cnn
        self.size = size

    def features(self, image: Tensor) -> Tensor:
        """Pooled features of images (N, C, H, W), (N, F)."""
        longer = max(image.shape[-2:])
        if longer > self.size:
            height, width = (max(1, round(side * self.size / longer)) for side in image.shape[-2:])
            image = F.interpolate(image, (height, width), mode="area")
        features: Tensor = self.cnn(image)
        return features
