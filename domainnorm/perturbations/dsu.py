"""Styles drawn around those of the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.errors import DomainNormError
from domainnorm.perturbations.base import Perturbation, style_of
from domainnorm.registry import register


@register
class DSU(Perturbation):
    """The mean and deviation of each sample are drawn anew, as widely as the batch's spread.

    ``y = (σ(x) + ε_σ Σ_σ) (x - μ(x)) / σ(x) + μ(x) + ε_μ Σ_μ`` with ``ε ~ N(0, factor²)`` per
    sample and channel, ``Σ_μ² = avg_n (μ(x_n) - avg μ)²`` and ``Σ_σ²`` likewise. A batch of one
    sample has no spread and stays as it is.

    Args:
        factor: Times the spread of the batch, 0 or above.
        eps: Added to the variance.
        **options: See `Perturbation`.

    Reference:
        Li et al., Uncertainty Modeling for Out-of-Distribution Generalization, ICLR 2022,
        arXiv:2202.03958, eq. 5 to 8.
    """

    default_where = ("stem", "stage1", "stage2", "stage3", "stage4")

    def __init__(self, *, factor: float = 1.0, eps: float = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        if factor < 0:
            raise DomainNormError(f"factor: got {factor}, expected 0 or above")
        self.factor = factor
        self.eps = eps

    def perturb(self, x: Tensor) -> Tensor:
        """Draw the styles of ``x`` (N, C, *) anew."""
        mean, std = style_of(x, self.eps)
        drawn_mean, drawn_std = self._draw(mean), self._draw(std)
        return ((x - mean) * (drawn_std / std) + drawn_mean).to(x.dtype)

    def _draw(self, moment: Tensor) -> Tensor:
        var = moment.var(0, unbiased=False, keepdim=True)
        # The square root has no finite derivative at 0: a channel that is constant over the batch.
        spread = torch.where(var > 0, var, 1.0).sqrt() * (var > 0)
        return moment + self.factor * torch.randn_like(moment) * spread

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"factor={self.factor}, {super().extra_repr()}"
