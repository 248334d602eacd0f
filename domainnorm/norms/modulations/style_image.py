"""The mean and standard deviation of a style image's features."""

from __future__ import annotations

import torch
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.norms.kernels.per_sample import accumulate_dtype
from domainnorm.norms.kernels.sample_moments import sample_moments
from domainnorm.norms.layer import Modulation
from domainnorm.registry import register


@register("style")
class StyleModulation(Modulation):
    """Scale and shift are the deviation and mean of a style image's features at this layer.

    ``scale = sqrt(var(style) + eps)``, ``shift = mean(style)``, over the pixels of each channel, as
    `DomainModel.record_moments` finds them; one style serves all samples, or each has its own. A
    condition without style gives the sample's own moments: with instance statistics of the same
    ``eps`` the layer is then the identity.

    Args:
        num_features: C.
        num_domains: D; the style does not depend on it.
        eps: Added to the variance.

    Reference:
        Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance
        Normalization, ICCV 2017, arXiv:1703.06868, eq. 8. Differs: variances are biased, where
        naoto0804/pytorch-AdaIN takes unbiased ones; one layer of features in one network, not
        between an encoder and a decoder that was trained for it.
    """

    keeps_function = False
    needs = "style"

    def __init__(self, num_features: int, num_domains: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps

    def forward(self, condition: Condition, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift, (N or 1, C) each, float32 or wider.

        Raises:
            ConditionError: A style that was not recorded at this layer, or not for one or N images
                of C channels.
        """
        if condition.style is None:
            mean, var = sample_moments(x)
            return torch.sqrt(var + self.eps), mean
        mean, var = self._recorded(condition, x.shape[0])
        mean, var = (moment.to(x.device, accumulate_dtype(x)) for moment in (mean, var))
        return torch.sqrt(var + self.eps), mean

    def _recorded(self, condition: Condition, num_samples: int) -> tuple[Tensor, Tensor]:
        style = condition.style or {}
        if self.path not in style:
            known = ", ".join(list(style)[:3]) or "no layer at all"
            raise ConditionError(
                f"style holds no moments of '{self.path}' (it has {known}); record it with this "
                "model: style=model.record_moments(style_image)"
            )
        mean, var = style[self.path]
        if len(mean) not in (1, num_samples) or mean.shape[1] != self.num_features:
            raise ConditionError(
                f"style has moments {tuple(mean.shape)}, expected (1 or {num_samples}, "
                f"{self.num_features}): one style image for all, or one per sample"
            )
        return mean, var

    def start(self, scale: Tensor, shift: Tensor) -> None:
        """Nothing: there are no parameters, the style takes the place of ``scale``, ``shift``."""

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"eps={self.eps}"
