"""Losses between an image and the one that it should be."""

from __future__ import annotations

from torch import Tensor

from domainnorm.losses.perceptual import variation_loss
from domainnorm.losses.precision import in_float32


@in_float32
def charbonnier_loss(image: Tensor, wanted: Tensor, eps: float = 1e-3) -> Tensor:
    """``mean sqrt((x - y)² + ε²)``: absolute difference, but smooth around zero.

    Args:
        image: x, any shape.
        wanted: y, the same shape.
        eps: ε, how wide it is smooth.

    Reference:
        Charbonnier et al., Two deterministic half-quadratic regularization algorithms for computed
        imaging, ICIP 1994; for super-resolution: Lai et al., CVPR 2017, arXiv:1704.03915, sec. 3.3.
    """
    return ((image - wanted).square() + eps**2).sqrt().mean()


@in_float32
def gradient_loss(image: Tensor, wanted: Tensor) -> Tensor:
    """How far edges differ: mean absolute difference of the steps to the next pixel.

    ``mean |Δ(x - y)|`` down plus the same to the right, Δ being the difference of neighbours.

    Args:
        image: x, (N, C, H, W), two pixels or more along both sides.
        wanted: y, the same shape.

    Reference:
        Mathieu, Couprie and LeCun, Deep multi-scale video prediction beyond mean square error, ICLR
        2016, arXiv:1511.05440, eq. 6 (with its α = 1).
        Differs: of differences with their sign, not of their absolute values, so that an edge from
        dark to light is not one from light to dark.
    """
    return variation_loss(image - wanted)
