"""A light decoder for plain vision transformers: a pyramid of transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from segmentation_models_pytorch.encoders.timm_vit import TimmViTEncoder
from timm.layers import LayerNorm2d
from torch import Tensor, nn


class Pyramid(nn.Module):
    """A plain vision transformer as encoder, `PyramidDecoder`, and a head of one convolution.

    Maps of four blocks at equal distances, the last one included, all of one size h × w, patches of
    side P, go into a pyramid of P/4, P/2, P and 2P pixels: 4, 8, 16 and 32 where patches have 16.
    Tokens that stand for no place (class, registers) are left out.

    Args:
        encoder_name: A timm architecture, with or without ``tu-`` in front.
        encoder_weights: Whether pretrained weights are loaded, not None for yes.
        classes: K.
        in_channels: C.
        decoder_channels: Channels of each level of the pyramid.
        **options: Of `timm.create_model`.

    Shape:
        - image: (N, C, H, W), H and W multiples of P
        - logits: (N, K, H, W)

    Raises:
        ValueError: An encoder whose maps are of several sizes.
    """

    requires_divisible_input_shape = True

    def __init__(
        self,
        encoder_name: str,
        *,
        encoder_weights: Any,
        classes: int,
        in_channels: int,
        decoder_channels: int,
        **options: Any,
    ) -> None:
        super().__init__()
        self.encoder = TimmViTEncoder(
            encoder_name.removeprefix("tu-"),
            pretrained=encoder_weights is not None,
            in_channels=in_channels,
            **options,
        )
        if len(set(self.encoder.output_strides)) > 1:
            raise ValueError(f"it has maps of strides {self.encoder.output_strides}")
        self.decoder = PyramidDecoder(self.encoder.out_channels, decoder_channels)
        self.segmentation_head = nn.Conv2d(decoder_channels, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the size of the image, interpolated from a quarter of a patch."""
        maps, _ = self.encoder(image)
        logits = self.segmentation_head(self.decoder(maps))
        return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)


class PyramidDecoder(nn.Module):
    """Four maps of one size, made a pyramid and summed from coarse to fine.

    ``p_1 = up(up(f_1)), p_2 = up(f_2), p_3 = f_3, p_4 = pool(f_4)``, each normalized before and
    after, then ``y_4 = p_4, y_i = smooth(p_i + up(y_(i+1)))``. ``up`` doubles a map by a transposed
    convolution, ``smooth`` is a 3×3 convolution, layer norm and GELU. All norms are layer norms
    over channels: like the encoder, it has no moments that images of another kind could move.

    Args:
        channels: Of each of the four maps, finest level first.
        width: Channels of each level of the pyramid.

    Shape:
        - maps: four of (N, E, h, w)
        - output: (N, width, 4h, 4w)

    Reference:
        Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022,
        arXiv:2203.16527, sec. 3 (simple feature pyramid); Englert and Dubbelman, VFM-UDA++, ICCV
        workshops 2025, arXiv:2503.10685 (levels summed by transposed convolutions).
        Differs: ViTDet makes all levels of the last map; VFM-UDA++ takes them from a ViT-Adapter,
        normalizes by batches, and halves channels from level to level.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(LayerNorm2d(count), *_resized(count, factor, width), LayerNorm2d(width))
            for count, factor in zip(channels, (4, 2, 1, 0.5), strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, 2) for _ in channels[1:])
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), LayerNorm2d(width), nn.GELU())
            for _ in channels[1:]
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The finest level."""
        merged: Tensor
        *finer, merged = (level(one) for level, one in zip(self.levels, maps, strict=True))
        for up, smooth, fine in zip(self.up, self.smooth, reversed(finer), strict=True):
            height, width = fine.shape[-2:]
            # Half of an odd number of patches was rounded up.
            merged = smooth(fine + up(merged)[..., :height, :width])
        return merged


def _resized(count: int, factor: float, width: int) -> list[nn.Module]:
    """From ``count`` channels to ``width``, and to ``factor`` times the size."""
    if factor == 0.5:
        return [nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(count, width, 1)]
    half, quarter = max(1, count // 2), max(1, count // 4)
    doubled = nn.ConvTranspose2d(count, half, 2, 2)
    if factor == 4:
        again = nn.ConvTranspose2d(half, quarter, 2, 2)
        return [doubled, LayerNorm2d(half), nn.GELU(), again, nn.Conv2d(quarter, width, 1)]
    return [doubled, nn.Conv2d(half, width, 1)] if factor == 2 else [nn.Conv2d(count, width, 1)]
