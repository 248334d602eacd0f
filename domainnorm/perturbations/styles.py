"""Styles of feature maps: mixed between samples, swapped, or drawn anew."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from domainnorm.errors import DomainNormError
from domainnorm.perturbations.base import Perturbation, style_of
from domainnorm.registry import register


class StyleMixing(Perturbation):
    """Each sample keeps a share λ of its own style, and takes the rest from a partner.

    Args:
        alpha: Parameter of the Beta distribution, above 0; small values mix less.
        mode: Partners of samples: a ``random`` permutation of the batch, or samples of other
            domains (``cross_domain``), if the batch has any.
        **options: See `Perturbation`.

    Raises:
        DomainNormError: ``alpha`` is not above 0, or an unknown mode.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        mode: Literal["random", "cross_domain"] = "random",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not alpha > 0:
            raise DomainNormError(f"alpha: got {alpha}, expected a number above 0")
        if mode not in ("random", "cross_domain"):
            raise DomainNormError(f"mode: got '{mode}', expected 'random' or 'cross_domain'")
        self.alpha = alpha
        self.mode = mode

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"alpha={self.alpha}, mode={self.mode}, {super().extra_repr()}"


def draw_beta(alpha: float, like: Tensor) -> Tensor:
    """λ ~ Beta(alpha, alpha) per sample, (N, 1, ...), as many axes as ``like``."""
    concentration = torch.full((len(like), 2), alpha, device=like.device, dtype=like.dtype)
    draws = torch._sample_dirichlet(concentration)[:, 0]  # as torch.distributions.Beta does
    return draws.reshape(-1, *(1,) * (like.ndim - 1))


@register("mixstyle")
class MixStyle(StyleMixing):
    """Mix the style (mean, deviation) of each sample with the style of a partner.

    ``y = (λ σ(x) + (1 - λ) σ(x')) (x - μ(x)) / σ(x) + λ μ(x) + (1 - λ) μ(x')``,
    ``λ ~ Beta(alpha, alpha)`` per sample. No gradient flows through μ and σ.

    Args:
        eps: Added to the variance.
        **options: See `StyleMixing`.

    Reference:
        Zhou et al., Domain Generalization with MixStyle, ICLR 2021, arXiv:2104.02008, eq. 3 to 5.
        Differs: cross-domain partners are drawn for any mix of domains and any batch size, where
        the paper swaps the two halves of a batch.
    """

    def __init__(self, *, eps: float = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        self.eps = eps

    def perturb(self, x: Tensor) -> Tensor:
        """Mix the styles of ``x`` (N, C, *)."""
        mean, std = (moment.detach() for moment in style_of(x, self.eps))
        partner = self.partners(x, self.mode == "cross_domain")
        own = draw_beta(self.alpha, mean)
        mixed_mean = own * mean + (1 - own) * mean[partner]
        mixed_std = own * std + (1 - own) * std[partner]
        return ((x - mean) * (mixed_std / std) + mixed_mean).to(x.dtype)


@register("efdmix")
class EFDMix(StyleMixing):
    """Mix each channel's sorted values with those of a partner: exact distribution matching.

    ``y_τ(i) = x_τ(i) + (1 - λ) (x'_κ(i) - <x_τ(i)>)`` with ``τ``, ``κ`` the orders that sort a
    channel of the sample and of its partner, ``<·>`` without gradient, and
    ``λ ~ Beta(alpha, alpha)`` per sample. λ = 0 gives the channel exactly the partner's
    distribution, all its moments included.

    Args:
        **options: See `StyleMixing`.

    Reference:
        Zhang et al., Exact Feature Distribution Matching, CVPR 2022, arXiv:2203.07740, sec. 3.
        Agrees with the authors' code (YBZh/EFDM): gradients flow into the partner's values.
        Differs: cross-domain partners as in `MixStyle`.
    """

    def perturb(self, x: Tensor) -> Tensor:
        """Mix the sorted values of ``x`` (N, C, *)."""
        values = x.flatten(2)
        ordered, order = values.sort(2)
        partner = self.partners(x, self.mode == "cross_domain")
        matched = torch.empty_like(values).scatter(2, order, ordered[partner])
        wide_type = torch.promote_types(x.dtype, torch.float32)
        wide = torch.empty(len(x), 1, 1, device=x.device, dtype=wide_type)
        step = (1 - draw_beta(self.alpha, wide)) * (matched - values.detach())
        return x + step.to(x.dtype).reshape(x.shape)


@register("dsu")
class DSU(Perturbation):
    """Add noise to the mean and deviation of each sample, as large as their spread in the batch.

    ``y = (σ(x) + ε_σ Σ_σ) (x - μ(x)) / σ(x) + μ(x) + ε_μ Σ_μ`` with ``ε ~ N(0, factor²)`` per
    sample and channel, ``Σ_μ² = avg_n (μ(x_n) - avg μ)²`` and ``Σ_σ²`` likewise. A batch of one
    sample has no spread and stays as it is.

    Args:
        factor: Factor of the batch's spread, at least 0.
        eps: Added to the variance.
        **options: See `Perturbation`.

    Reference:
        Li et al., Uncertainty Modeling for Out-of-Distribution Generalization, ICLR 2022,
        arXiv:2202.03958, eq. 5 to 8. Differs: variances are biased, as in the paper, and nothing is
        added to those over the batch, where the authors' code (lixiaotong97/DSU) takes unbiased
        ones and adds eps to all, so that there equal samples are perturbed as well; it sits after
        the stem and each stage, there after the first convolution, the pooling and each stage.
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


@register("padain")
class PAdaIN(Perturbation):
    """Give each sample the style of another one, by a random permutation of the batch.

    ``y = σ(x') (x - μ(x)) / σ(x) + μ(x')``; no gradient flows into the partner's style.

    Args:
        p: Probability in [0, 1] that a batch is perturbed; small, since it swaps the whole style.
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
