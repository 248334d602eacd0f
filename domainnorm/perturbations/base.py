"""Perturbation of features: when it acts, on which axis, and who a sample is mixed with."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.registry import PERTURBATIONS as PERTURBATIONS  # noqa: PLC0414, a public name of this part
from domainnorm.slot import ConditionSlot


class Perturbation(nn.Module, abc.ABC):
    """Changes the style of feature maps at random in training; the identity in evaluation.

    Style is the mean and standard deviation of each channel over its pixels. One draw decides
    whether the whole batch is perturbed, as in the papers. All randomness comes from torch's
    generator.

    Args:
        p: Probability in [0, 1] that a batch is perturbed.
        channel_axis: Axis of the channels: 1 for (N, C, *), -1 for tokens (N, L, C) and maps
            (N, H, W, C). None: 1, or where one is inserted into a model, what timm declares.

    Subclasses name in ``default_where`` the stages after which their paper puts them. ``slot`` and
    ``path`` are set where one is inserted into a model.

    Shape:
        Any with samples first, channels and at least one further axis; the same out, dtype and
        memory layout included.

    Raises:
        DomainNormError: A probability outside [0, 1], or the axis of the samples.
    """

    default_where: tuple[str, ...] = ("stage1", "stage2")
    path: str = "perturbation"

    def __init__(self, *, p: float = 0.5, channel_axis: int | None = None) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise DomainNormError(f"p: got {p}, expected a probability in [0, 1]")
        if channel_axis == 0:
            raise DomainNormError("channel_axis: got 0, the axis of the samples; use 1 or -1")
        self.p = p
        self.channel_axis = 1 if channel_axis is None else channel_axis
        self.slot: ConditionSlot | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Perturb ``x`` with probability ``p`` in training.

        Raises:
            ConditionError: An input without pixels, (N, C).
        """
        if not self.training or self.p == 0 or len(x) == 0:
            return x
        if x.ndim < 3:
            raise ConditionError(
                f"{self.path}: got features {tuple(x.shape)}; the style of a sample is taken over "
                "its pixels or tokens, insert the perturbation before they are pooled"
            )
        acts = torch.rand((), device=x.device) < self.p
        if torch.compiler.is_compiling():  # reading the draw would break the graph
            return torch.where(acts, self._perturbed(x), x)
        return self._perturbed(x) if acts else x

    def _perturbed(self, x: Tensor) -> Tensor:
        return self.perturb(x.movedim(self.channel_axis, 1)).movedim(1, self.channel_axis)

    @abc.abstractmethod
    def perturb(self, x: Tensor) -> Tensor:
        """The perturbed features of ``x`` (N, C, *), at least one axis beyond channels."""

    def partners(self, x: Tensor, cross_domain: bool = False) -> Tensor:
        """A sample of the batch for each sample to be mixed with, (N,) int64.

        Args:
            x: (N, C, *).
            cross_domain: Draw from the samples of other domains, from all where there are none;
                otherwise a random permutation.

        Raises:
            ConditionError: ``cross_domain`` without domain labels.
        """
        if not cross_domain:
            return torch.randperm(len(x), device=x.device)
        domain = self._domain(len(x)).to(x.device)
        other = domain[:, None] != domain
        chosen = torch.where(other.any(1, keepdim=True), other, torch.ones_like(other))
        return torch.multinomial(chosen.float(), 1)[:, 0]

    def _domain(self, num_samples: int) -> Tensor:
        if self.slot is None:
            raise ConditionError(
                f"{self.path}: mode cross_domain reads the domain of each sample from a model's "
                "condition; insert it with `insert_after`, or set its `slot`"
            )
        domain = self.slot.read(self.path, num_samples).domain
        if domain is None:
            raise ConditionError(
                f"{self.path}: mode cross_domain needs one domain label per sample; pass domain="
            )
        return domain

    def extra_repr(self) -> str:
        """Constants, for ``print(model)``."""
        return f"p={self.p}, channel_axis={self.channel_axis}"


def style_of(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``sqrt(var + eps)`` of each sample and channel of (N, C, *).

    (N, C, 1, ...) each, as many axes as ``x``; float32 or float64, the variance biased.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    var, mean = torch.var_mean(wide, tuple(range(2, x.ndim)), unbiased=False, keepdim=True)
    return mean, torch.sqrt(var + eps)


def list_perturbations() -> list[str]:
    """Names for `create_perturbation`."""
    return PERTURBATIONS.names()


def create_perturbation(name: str, **options: Any) -> Perturbation:
    """Make a perturbation.

    Args:
        name: A name of `list_perturbations` (``"mixstyle"``).
        **options: Its keywords (``p``, ``channel_axis``, …).

    Raises:
        UnknownNameError: No such perturbation; the message gives the nearest.
        DomainNormError: An option it does not have, or a value out of range.
    """
    made: Perturbation = PERTURBATIONS.create(name, **options)
    return made
