"""Styles mixed between samples."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from domainnorm.errors import DomainNormError
from domainnorm.perturbations.base import Perturbation, style_of
from domainnorm.registry import register


@register
class MixStyle(Perturbation):
    """Each sample gets a convex combination of its own style and that of a partner.

    ``y = (λ σ(x) + (1 - λ) σ(x')) (x - μ(x)) / σ(x) + λ μ(x) + (1 - λ) μ(x')``,
    ``λ ~ Beta(alpha, alpha)`` per sample. No gradient flows through μ and σ.

    Args:
        alpha: Of the Beta distribution, above 0; small ones mix less.
        mode: Partners: a ``random`` permutation of the batch, or samples of other domains
            (``cross_domain``), of the same where the batch has no other.
        eps: Added to the variance.
        **options: See `Perturbation`.

    Reference:
        Zhou et al., Domain Generalization with MixStyle, ICLR 2021, arXiv:2104.02008, eq. 3 to 5.
        Differs: cross-domain partners are drawn for any mix of domains and any batch size, where
        the paper swaps the two halves of a batch.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        mode: Literal["random", "cross_domain"] = "random",
        eps: float = 1e-6,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_mixing(alpha, mode)
        self.alpha = alpha
        self.mode = mode
        self.eps = eps

    def perturb(self, x: Tensor) -> Tensor:
        """Mix the styles of ``x`` (N, C, *)."""
        mean, std = (moment.detach() for moment in style_of(x, self.eps))
        partner = self.partners(x, self.mode == "cross_domain")
        own = draw_beta(self.alpha, mean)
        mixed_mean = own * mean + (1 - own) * mean[partner]
        mixed_std = own * std + (1 - own) * std[partner]
        return ((x - mean) * (mixed_std / std) + mixed_mean).to(x.dtype)

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"alpha={self.alpha}, mode={self.mode}, {super().extra_repr()}"


def check_mixing(alpha: float, mode: str) -> None:
    """Refuse what no mixing coefficient or partner can be drawn with.

    Raises:
        DomainNormError: ``alpha`` is not above 0, or an unknown mode.
    """
    if not alpha > 0:
        raise DomainNormError(f"alpha: got {alpha}, expected a number above 0")
    if mode not in ("random", "cross_domain"):
        raise DomainNormError(f"mode: got '{mode}', expected 'random' or 'cross_domain'")


def draw_beta(alpha: float, like: Tensor) -> Tensor:
    """λ ~ Beta(alpha, alpha) per sample, (N, 1, ...), as many axes as ``like``."""
    concentration = torch.full((len(like), 2), alpha, device=like.device, dtype=like.dtype)
    draws = torch._sample_dirichlet(concentration)[:, 0]  # as torch.distributions.Beta does
    return draws.reshape(-1, *(1,) * (like.ndim - 1))
