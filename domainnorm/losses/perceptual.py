"""Losses between images by the feature maps that a frozen network has of them."""

from __future__ import annotations

import torch
from torch import Tensor

from domainnorm.errors import DomainNormError
from domainnorm.losses.precision import in_float32


@in_float32
def smoothed(maps: Tensor) -> Tensor:
    """Feature maps as shares of the channels at each place: ``C · softmax over channels``.

    Of networks with residual connections a few activations are so large that they alone would
    decide what compares feature maps; shares have a mean of 1 and none above C.

    Args:
        maps: (N, C, h, w).

    Reference:
        Wang, Li and Vasconcelos, Rethinking and Improving the Robustness of Image Style Transfer,
        CVPR 2021, arXiv:2104.05623, sec. 4.
        Differs: the softmax is over the channels of each place.
    """
    return maps.softmax(1) * maps.shape[1]


@in_float32
def content_loss(maps: Tensor, wanted: Tensor) -> Tensor:
    """How far maps are from those of the images that they shall show the content of.

    ``mean (f - g)² / var g``: 1 where ``f`` says no more of ``g`` than its mean.

    Args:
        maps: f, (N, C, h, w).
        wanted: g, the same shape.
    """
    return (maps - wanted).square().mean() / wanted.var().clamp(min=1e-8)


@in_float32
def style_loss(maps: Tensor, asked: Tensor, real: Tensor, domain: Tensor) -> Tensor:
    """How far the moments of images that were asked for a domain are from those of its real images.

    With ``m[d, c]`` and ``s[d, c]`` the mean and standard deviation of each channel of an image,
    averaged over the images asked for domain d, and ``M[d, c]``, ``S[d, c]`` over its real images:
    ``mean over d, c of ((m - M)² + (s - S)²) / t[d]²``, ``t[d]`` the mean over c of ``S[d, c]``.
    One image need not be as the average is; and what differs between the images of a domain is not
    asked for within one, as by the deviation of all pixels together, which paints patches.

    Args:
        maps: Of images that shall have a style, (N, C, h, w).
        asked: Which domain's, (N,).
        real: Of real images, (M, C, h, w).
        domain: Their domains, (M,).

    Raises:
        DomainNormError: A domain is asked for that no real image is of.

    Reference:
        Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance
        Normalization, ICCV 2017, arXiv:1703.06868, eq. 13.
        Differs: averages over the images of a domain, not the moments of one image each.
    """
    distances = []
    present = sorted(set(domain.tolist()))
    for label in sorted(set(asked.tolist())):
        if label not in present:
            raise DomainNormError(
                f"style_loss: domain {label} is asked for, and the real images are of {present}; "
                "give some of each"
            )
        own, wanted = _moments(maps[asked == label]), _moments(real[domain == label])
        distance = (own - wanted).square().mean(1).sum()
        distances.append(distance / wanted[1].mean().square().clamp(min=1e-8))
    return torch.stack(distances).mean()


@in_float32
def variation_loss(image: Tensor) -> Tensor:
    """Total variation: mean absolute difference of neighbours, below and beside, (N, C, H, W)."""
    return image.diff(dim=-2).abs().mean() + image.diff(dim=-1).abs().mean()


def _moments(maps: Tensor) -> Tensor:
    """Mean and standard deviation of each channel of an image, averaged over images, (2, C)."""
    variance, mean = torch.var_mean(maps, (2, 3), correction=0)
    return torch.stack([mean.mean(0), (variance + 1e-5).sqrt().mean(0)])
