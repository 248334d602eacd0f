"""Layers of torch and timm that compute one domain's side of a conditional norm."""

from __future__ import annotations

from timm.layers import LayerNorm2d, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import nn

from domainnorm.backbones.kinds import Family, NormKind
from domainnorm.errors import ConversionError
from domainnorm.norms.statistics.base import Statistics
from domainnorm.norms.statistics.batch import BatchStatistics
from domainnorm.norms.statistics.deviation import DeviationStatistics
from domainnorm.norms.statistics.domain import DomainStatistics
from domainnorm.norms.statistics.group import GroupStatistics
from domainnorm.norms.statistics.instance import InstanceStatistics
from domainnorm.norms.statistics.layer import LayerStatistics
from domainnorm.norms.statistics.rms import RMSStatistics

# By exact type: mixed statistics inherit from domain statistics and compute something else.
_MOMENTS: dict[Family, tuple[type[Statistics], ...]] = {
    "batch": (DomainStatistics, BatchStatistics),
    "instance": (InstanceStatistics,),
    "layer": (LayerStatistics,),
    "group": (GroupStatistics,),
    "rms": (RMSStatistics,),
    "deviation": (DeviationStatistics,),
}
_OF_MAPS: dict[type[Statistics], type[nn.Module]] = {
    LayerStatistics: LayerNorm2d,
    RMSStatistics: RmsNorm2d,
    DeviationStatistics: SimpleNorm2d,
}
_OF_TOKENS: dict[type[Statistics], type[nn.Module]] = {
    LayerStatistics: nn.LayerNorm,
    RMSStatistics: nn.RMSNorm,
    DeviationStatistics: SimpleNorm,
}
_INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def is_kin(layer: nn.Module, kind: NormKind, statistics: Statistics) -> bool:
    """Whether ``layer``, of this kind, can take in evaluation the moments of ``statistics``."""
    if type(statistics) not in _MOMENTS[kind.family] or statistics.tokens != kind.channels_last:
        return False
    if isinstance(statistics, InstanceStatistics) and statistics.stride > 1:
        return False
    if isinstance(statistics, GroupStatistics) and statistics.num_groups != layer.num_groups:
        return False
    return isinstance(kind.eps, str) or kind.eps == _eps(statistics)


def plain_kin(
    layer: nn.Module, kind: NormKind, statistics: Statistics, num_features: int
) -> nn.Module:
    """A layer with scale and shift that normalizes with the moments that ``statistics`` take.

    Args:
        layer: What the conditional norm of these statistics replaced.
        kind: Of that layer; it tells the axes of the features.
        statistics: Half of the conditional norm.
        num_features: C.

    Raises:
        ConversionError: Neither torch nor timm has such a layer.
    """
    eps = _eps(statistics)
    if isinstance(statistics, InstanceStatistics):
        if statistics.stride > 1:
            raise ConversionError("no plain layer takes moments of every k-th pixel (stride > 1)")
        if kind.axes is not None:
            return _INSTANCE[kind.axes](num_features, eps=eps, affine=True)
        return nn.GroupNorm(num_features, num_features, eps=eps)
    if isinstance(statistics, GroupStatistics):
        return nn.GroupNorm(statistics.num_groups, num_features, eps=eps)
    if statistics.tokens and type(statistics) in _OF_TOKENS:
        return _OF_TOKENS[type(statistics)](num_features, eps=eps)
    if kind.axes == 2 and type(statistics) in _OF_MAPS:
        return _OF_MAPS[type(statistics)](num_features, eps=eps)
    name = type(statistics).__module__.rpartition(".")[2]
    raise ConversionError(
        f"no plain layer of torch or timm has {name} statistics in place of a "
        f"{type(layer).__name__}; keep the DomainModel, or leave this layer out with `where`"
    )


def _eps(statistics: Statistics) -> float:
    return float(getattr(statistics, "eps", 0.0))
