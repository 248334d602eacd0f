"""Style of the image as its domain: colour, sharpness, spectrum, first features."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.encoders.base import DomainEncoder
from domainnorm.errors import ConditionError
from domainnorm.registry import register

# Pixels: what skewness, correlations and spectrum are taken of.
_LARGEST, _SMALLEST = 64, 16
_RINGS = 8
_PARTS = 4
_TINY = 1e-6


def shrunk(image: Tensor) -> Tensor:
    """An image (N, C, H, W) reduced by a whole factor, its shorter side to 64 pixels or more."""
    return reduced(image, max(1, min(image.shape[-2:]) // _LARGEST))


def style_features(image: Tensor, small: Tensor | None = None) -> Tensor:
    """Features of the style of each image, independent of its content.

    Mean and log standard deviation of each channel; log mean absolute difference of neighbouring
    pixels along both axes (noise, blur); of the image reduced to a square of at most 64 pixels,
    skewness of each channel, correlation of each pair of channels, and the log amplitude of the
    brightness spectrum in eight rings around frequency zero.

    Args:
        image: (N, C, H, W), H and W at least 2.
        small: Result of `shrunk`, if it is already computed.

    Returns:
        (N, 3C + C (C - 1) / 2 + 10).

    Raises:
        ConditionError: Something else than such images.

    Reference:
        Reinhard et al., Color Transfer between Images, IEEE CG&A 2001 (moments of colour);
        Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020,
        arXiv:2004.05498, sec. 3 (low-frequency amplitude).
    """
    _check_images(image)
    mean, spread = _moments(image)
    grey = image.mean(1, keepdim=True)
    vertical = (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean((2, 3))
    horizontal = (grey[..., 1:] - grey[..., :-1]).abs().mean((2, 3))
    side = max(_SMALLEST, min(_LARGEST, *image.shape[-2:]))
    small = shrunk(image) if small is None else small
    if small.shape[-2:] != (side, side):
        small = squared(small, side)
    return torch.cat(
        [
            mean,
            spread.log(),
            (vertical + _TINY).log(),
            (horizontal + _TINY).log(),
            *_colour(small),
            _rings(small.mean(1)),
        ],
        1,
    )


def _check_images(image: Tensor) -> None:
    if image.ndim != 4 or min(image.shape[-2:]) < 2 or not image.is_floating_point():
        raise ConditionError(
            f"style_features: images {tuple(image.shape)} {image.dtype}, expected floats "
            "(N, C, H, W), H and W at least 2; a single image is image[None], whole numbers are "
            "image.float() / 255"
        )


def map_moments(maps: Tensor) -> Tensor:
    """Mean and log standard deviation of each channel of feature maps (N, C, H, W), (N, 2C)."""
    mean, spread = _moments(maps)
    return torch.cat([mean, spread.log()], 1)


def reduced(image: Tensor, factor: int) -> Tensor:
    """Means of squares of ``factor`` pixels; what is over at the right and below is left out."""
    if factor == 1:
        return image
    height, width = (side // factor * factor for side in image.shape[-2:])
    # Sums of every k-th row and column: three to ten times as fast as pooling.
    rows = sum(image[:, :, first:height:factor] for first in range(factor))
    assert isinstance(rows, Tensor)
    total = sum(rows[..., first:width:factor] for first in range(factor))
    assert isinstance(total, Tensor)
    mean: Tensor = total / factor**2
    return mean


def squared(image: Tensor, side: int) -> Tensor:
    """`F.adaptive_avg_pool2d` to a square, by products with windows: faster, and deterministic."""
    # Where sizes have a common factor, windows are the same in each part: two or four of them take
    # half or a third of the time of one product, more parts are too small.
    height, width = (math.gcd(size, side, _PARTS) for size in image.shape[-2:])
    columns = _windows(image.shape[-1] // width, side // width, image.device).to(image.dtype)
    rows = _windows(image.shape[-2] // height, side // height, image.device).to(image.dtype)
    before = image.shape[:-2]
    narrow = (image.reshape(*before, image.shape[-2], width, -1) @ columns.T).flatten(-2)
    found: Tensor = (rows @ narrow.reshape(*before, height, -1, side)).flatten(-3, -2)
    return found


@cache
def _windows(size: int, side: int, device: torch.device) -> Tensor:
    """What averages ``size`` pixels in ``side`` windows, (side, size)."""
    with torch.inference_mode(False):  # kept for calls with gradients
        first = torch.arange(side) * size // side
        end = -(-(torch.arange(side) + 1) * size // side)
        place = torch.arange(size)
        inside = (place >= first[:, None]) & (place < end[:, None])
        weights: Tensor = inside / (end - first)[:, None]
        return weights.to(device)


def _moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (N, C) each."""
    mean = maps.mean((2, 3))
    # (maps - mean)² in one pass; ten times as fast as maps.var.
    apart = F.mse_loss(maps, mean[..., None, None].expand_as(maps), reduction="none")
    return mean, apart.mean((2, 3)).add(_TINY).sqrt()


def _colour(small: Tensor) -> tuple[Tensor, Tensor]:
    """Skewness of channels (N, C) and correlations of their pairs (N, C (C - 1) / 2)."""
    flat = small.flatten(2)
    apart = flat - flat.mean(2, keepdim=True)
    covariance = apart @ apart.transpose(1, 2) / flat.shape[2]
    spread = covariance.diagonal(dim1=1, dim2=2).add(_TINY).sqrt()
    first, second = torch.triu_indices(flat.shape[1], flat.shape[1], 1, device=flat.device)
    correlation = covariance[:, first, second] / (spread[:, first] * spread[:, second])
    return apart.pow(3).mean(2) / spread.pow(3), correlation


def _rings(grey: Tensor) -> Tensor:
    """Log amplitude (N, 8) of square pictures (N, S, S), averaged over rings of frequencies."""
    if not len(grey):  # MKL refuses to transform nothing
        return grey.new_zeros(0, _RINGS)
    waves = torch.fft.rfft2(grey, norm="ortho")
    # A third of the time of waves.abs(); clamped, since the root has no derivative at zero.
    power = waves.real.square() + waves.imag.square()
    amplitude = power.clamp(min=_TINY**2).sqrt().add(1e-3).log().flatten(1)
    found: Tensor = amplitude @ _ring_weights(grey.shape[-1], grey.device).to(amplitude.dtype)
    return found


@cache
def _ring_weights(size: int, device: torch.device) -> Tensor:
    """What averages the frequencies of each ring, (S (S / 2 + 1), 8)."""
    with torch.inference_mode(False):  # kept for calls with gradients
        vertical = torch.fft.fftfreq(size)[:, None]
        horizontal = torch.fft.rfftfreq(size)
        radius = (vertical.square() + horizontal.square()).sqrt().flatten()
        ring = (radius * 2 * _RINGS).floor().long()
        inside = (radius > 0) & (ring < _RINGS)  # frequency zero is the mean
        member = F.one_hot(ring.clamp(max=_RINGS - 1), _RINGS) * inside[:, None]
        weights: Tensor = member / member.sum(0).clamp(min=1)  # small pictures lack some rings
        return weights.to(device)


@register
class StyleEncoder(DomainEncoder):
    """Colour moments, sharpness, spectrum, and moments of the backbone's first convolution.

    The cheapest encoder, for domains that differ in style: stains, cameras, scanners, light. It
    learns in seconds, since its features have no weights of their own.

    Args:
        num_domains: D.
        network: The backbone; its first convolution is shared, not copied. Without a backbone or a
            convolution, these moments are left out.
        in_chans: Channels of the images.
        **options: See `DomainEncoder`.

    Reference:
        Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance
        Normalization, ICCV 2017, arXiv:1703.06868, sec. 3 (style as moments of features).
    """

    def __init__(
        self, num_domains: int, network: nn.Module | None = None, in_chans: int = 3, **options: Any
    ) -> None:
        stem = _first_convolution(network, in_chans)
        size = 3 * in_chans + in_chans * (in_chans - 1) // 2 + 10
        size += 0 if stem is None else 2 * stem.out_channels
        super().__init__(num_domains, size, **options)
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
