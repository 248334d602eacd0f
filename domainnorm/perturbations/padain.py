"""Styles swapped between samples."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from domainnorm.perturbations.base import Perturbation, style_of
from domainnorm.registry import register


@register
class PAdaIN(Perturbation):
    """Each sample gets the style of another, by a random permutation of the batch.

    ``y = σ(x') (x - μ(x)) / σ(x) + μ(x')``; no gradient flows into the partner's style.

    Args:
        p: Probability in [0, 1] that a batch is perturbed; small, since the swap is complete.
        eps: Added to the variance.
        **options: See `Perturbation`.

    Reference:
        Nuriel et al., Permuted AdaIN, CVPR 2021, arXiv:2010.05785, sec. 3.
        Differs: the variance is biased, where the authors' code (onuriel/PermutedAdaIN) takes the
        unbiased one; it sits after stages, not after every convolution.
    """

    default_where = ("stem", "stage1", "stage2", "stage3", "stage4")

    def __init__(self, *, p: float = 0.01, eps: float = 1e-5, **options: Any) -> None:
        super().__init__(p=p, **options)
        self.eps = eps

    def perturb(self, x: Tensor) -> Tensor:
        """Permute the styles of ``x`` (N, C, *)."""
        mean, std = style_of(x, self.eps)
        partner = self.partners(x)
        slope = std[partner].detach() / std
        return ((x - mean) * slope + mean[partner].detach()).to(x.dtype)
