"""Moments of images by which domains differ: colour, sharpness, spectrum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALL = 64  # pixels: what skewness, correlations and spectrum are taken of
_RINGS = 8
_TINY = 1e-6


def style_features(image: Tensor) -> Tensor:
    """Style of each image, whatever it shows.

    Mean and log standard deviation of each channel; log mean absolute difference of neighbouring
    pixels along both axes (noise, blur); of the image reduced to 64 pixels, skewness of each
    channel, correlation of each pair of channels, and the log amplitude of the brightness spectrum
    in eight rings around frequency zero.

    Args:
        image: (N, C, H, W), H and W at least 2.

    Returns:
        (N, 3C + C (C - 1) / 2 + 10).

    Reference:
        Reinhard et al., Color Transfer between Images, IEEE CG&A 2001 (moments of colour);
        Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020,
        arXiv:2004.05498, sec. 3 (low-frequency amplitude).
    """
    mean, spread = image.mean((2, 3)), image.var((2, 3), unbiased=False).add(_TINY).sqrt()
    grey = image.mean(1, keepdim=True)
    vertical = (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean((2, 3))
    horizontal = (grey[..., 1:] - grey[..., :-1]).abs().mean((2, 3))
    small = F.adaptive_avg_pool2d(image, _SMALL)
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


def map_moments(maps: Tensor) -> Tensor:
    """Mean and log standard deviation of each channel of feature maps (N, C, H, W), (N, 2C)."""
    spread = maps.var((2, 3), unbiased=False).add(_TINY).sqrt()
    return torch.cat([maps.mean((2, 3)), spread.log()], 1)


def _colour(small: Tensor) -> tuple[Tensor, Tensor]:
    """Skewness of channels (N, C) and correlations of their pairs (N, C (C - 1) / 2)."""
    flat = small.flatten(2)
    apart = flat - flat.mean(2, keepdim=True)
    white = apart / apart.square().mean(2, keepdim=True).add(_TINY).sqrt()
    correlation = white @ white.transpose(1, 2) / white.shape[2]
    first, second = torch.triu_indices(flat.shape[1], flat.shape[1], 1, device=flat.device)
    return white.pow(3).mean(2), correlation[:, first, second]


def _rings(grey: Tensor) -> Tensor:
    """Log amplitude (N, 8) of square pictures (N, S, S), averaged over rings of frequencies."""
    size = grey.shape[-1]
    amplitude = torch.fft.rfft2(grey, norm="ortho").abs().add(1e-3).log().flatten(1)
    vertical = torch.fft.fftfreq(size, device=grey.device)[:, None]
    horizontal = torch.fft.rfftfreq(size, device=grey.device)
    radius = (vertical.square() + horizontal.square()).sqrt().flatten()
    ring = (radius * 2 * _RINGS).floor().long()
    inside = (radius > 0) & (ring < _RINGS)  # frequency zero is the mean
    member = F.one_hot(ring.clamp(max=_RINGS - 1), _RINGS) * inside[:, None]
    member = member.to(amplitude)
    found: Tensor = amplitude @ (member / member.sum(0))
    return found
