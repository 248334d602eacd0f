"""Layers of torch and timm that compute one domain's side of a conditional norm."""

from __future__ import annotations

import torch
from timm.layers import LayerNorm2d, RmsNorm, RmsNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from domainnorm.errors import ConversionError
from domainnorm.norms.base import Statistics
from domainnorm.norms.statistics.batch import BatchStatistics
from domainnorm.norms.statistics.domain import DomainStatistics
from domainnorm.norms.statistics.group import GroupStatistics
from domainnorm.norms.statistics.instance import InstanceStatistics
from domainnorm.norms.statistics.layer import LayerStatistics
from domainnorm.norms.statistics.rms import RMSStatistics

# By exact type: mixed statistics inherit from domain statistics and compute something else.
_KIN: dict[type[Statistics], tuple[type[nn.Module], ...]] = {
    DomainStatistics: (_BatchNorm,),
    BatchStatistics: (_BatchNorm,),
    LayerStatistics: (nn.LayerNorm,),
    GroupStatistics: (nn.GroupNorm,),
    RMSStatistics: (nn.RMSNorm, RmsNorm, RmsNorm2d),
}
_OF_MAPS: dict[type[Statistics], type[nn.Module]] = {
    LayerStatistics: LayerNorm2d,
    RMSStatistics: RmsNorm2d,
}
_INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def is_kin(layer: nn.Module, statistics: Statistics) -> bool:
    """Whether ``layer`` normalizes, in evaluation, with the moments that ``statistics`` take."""
    if isinstance(statistics, GroupStatistics):
        groups = getattr(layer, "num_groups", None)
        return isinstance(layer, nn.GroupNorm) and groups == statistics.num_groups
    return isinstance(layer, _KIN.get(type(statistics), ()))


def plain_kin(statistics: Statistics, instead: nn.Module, num_features: int) -> nn.Module:
    """A layer with scale and shift that normalizes with the moments that ``statistics`` take.

    Args:
        statistics: Half of a conditional norm.
        instead: The layer which that norm replaced; it tells the axes of the features.
        num_features: C.

    Raises:
        ConversionError: Neither torch nor timm has such a layer.
    """
    axes, eps = _spatial_axes(instead), getattr(statistics, "eps", 0.0)
    if isinstance(statistics, InstanceStatistics) and axes is not None:
        if statistics.stride == 1:
            return _INSTANCE[axes](num_features, eps=eps, affine=True)
        raise ConversionError("no plain layer takes moments of every k-th pixel (stride > 1)")
    if isinstance(statistics, GroupStatistics):
        return nn.GroupNorm(statistics.num_groups, num_features, eps=eps)
    if type(statistics) in _OF_MAPS and axes == 2:
        return _OF_MAPS[type(statistics)](num_features, eps=eps)
    kind = type(statistics).__module__.rpartition(".")[2]
    raise ConversionError(
        f"no plain layer of torch or timm has {kind} statistics in place of a "
        f"{type(instead).__name__}; keep the DomainModel, or leave this layer out with `where`"
    )


@torch.no_grad()
def write_pair(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Make ``scale`` and ``shift`` (C,) the weight and bias of ``layer``.

    A layer without them stays as it is where they would be 1 and 0.

    Raises:
        ConversionError: The layer's class has no bias, and ``shift`` is not zero.
    """
    for name, value, neutral in (("weight", scale, 1), ("bias", shift, 0)):
        old = getattr(layer, name, None)
        if old is None and bool((value == neutral).all()):
            continue
        if not hasattr(layer, name):
            raise ConversionError(
                f"the domain has a {'scale' if neutral else 'shift'}, and {type(layer).__name__} "
                f"has no {name} to hold it"
            )
        if isinstance(old, Tensor) and not isinstance(old, nn.Parameter):
            setattr(layer, name, value.clone())
            continue
        wanted = old.requires_grad if old is not None else True
        setattr(layer, name, nn.Parameter(value.clone(), requires_grad=wanted))


def _spatial_axes(layer: nn.Module) -> int | None:
    """Spatial axes of the features that ``layer`` takes, or None where its class does not tell."""
    numbers = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3, LayerNorm2d: 2}
    return next((axes for kind, axes in numbers.items() if isinstance(layer, kind)), None)
