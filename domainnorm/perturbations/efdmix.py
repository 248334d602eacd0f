"""Whole distributions of features mixed between samples."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from domainnorm.perturbations.base import Perturbation, accumulate_dtype
from domainnorm.perturbations.mixstyle import check_mixing, draw_beta
from domainnorm.registry import register


@register
class EFDMix(Perturbation):
    """Each value moves towards the value of the same rank in a partner's channel.

    ``y_τ(i) = x_τ(i) + (1 - λ) (x'_κ(i) - <x_τ(i)>)`` with ``τ``, ``κ`` the orders that sort a
    channel of the sample and of its partner, ``<·>`` without gradient, and
    ``λ ~ Beta(alpha, alpha)`` per sample. λ = 0 gives the channel exactly the partner's
    distribution, all its moments included.

    Args:
        alpha: Of the Beta distribution, above 0; small ones mix less.
        mode: Partners: a ``random`` permutation of the batch, or samples of other domains
            (``cross_domain``), of the same where the batch has no other.
        **options: See `Perturbation`.

    Reference:
        Zhang et al., Exact Feature Distribution Matching, CVPR 2022, arXiv:2203.07740, sec. 3.
        Agrees with the authors' code (YBZh/EFDM): gradients flow into the partner's values.
        Differs: cross-domain partners as in `MixStyle`.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        mode: Literal["random", "cross_domain"] = "random",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_mixing(alpha, mode)
        self.alpha = alpha
        self.mode = mode

    def perturb(self, x: Tensor) -> Tensor:
        """Mix the sorted values of ``x`` (N, C, *)."""
        values = x.flatten(2)
        ordered, order = values.sort(2)
        partner = self.partners(x, self.mode == "cross_domain")
        matched = torch.empty_like(values).scatter(2, order, ordered[partner])
        wide = torch.empty(len(x), 1, 1, device=x.device, dtype=accumulate_dtype(x))
        step = (1 - draw_beta(self.alpha, wide)) * (matched - values.detach())
        return x + step.to(x.dtype).reshape(x.shape)

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"alpha={self.alpha}, mode={self.mode}, {super().extra_repr()}"
