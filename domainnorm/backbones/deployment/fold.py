"""One domain of a model as the plain network that it was converted from."""

from __future__ import annotations

import copy
import logging
from itertools import chain

import torch
from timm.layers import LayerNorm2d, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import Tensor, nn

from domainnorm.backbones.conversion.example import example_image
from domainnorm.backbones.conversion.kinds import KINDS, Family, NormKind, kind_of
from domainnorm.backbones.conversion.norm_layers import replace_modules
from domainnorm.backbones.deployment.fuse import fuse_norms
from domainnorm.backbones.insert import remove_perturbations
from domainnorm.backbones.model import DomainModel
from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, ConversionError, unknown
from domainnorm.norms import ConditionalNorm
from domainnorm.norms.layer import Statistics
from domainnorm.norms.statistics.channels import (
    DeviationStatistics,
    GroupStatistics,
    LayerStatistics,
    RMSStatistics,
)
from domainnorm.norms.statistics.instance import InstanceStatistics
from domainnorm.norms.statistics.running import BatchStatistics, DomainStatistics, RunningMoments
from domainnorm.registry import STATISTICS

_log = logging.getLogger(__name__)

# By exact type: mixed statistics inherit from domain statistics and compute something else.
_MOMENTS: dict[Family, tuple[type[Statistics], ...]] = {
    "batch": (DomainStatistics, BatchStatistics),
    "instance": (InstanceStatistics,),
    "layer": (LayerStatistics,),
    "group": (GroupStatistics,),
    "rms": (RMSStatistics,),
    "deviation": (DeviationStatistics,),
}
# Plain layers of the same formula, for maps and for tokens.
_PLAIN: dict[type[Statistics], tuple[type[nn.Module], type[nn.Module]]] = {
    LayerStatistics: (LayerNorm2d, nn.LayerNorm),
    RMSStatistics: (RmsNorm2d, nn.RMSNorm),
    DeviationStatistics: (SimpleNorm2d, SimpleNorm),
}
_INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def fold_domain(
    model: DomainModel, domain: str, fuse: bool = False, *, example: Tensor | None = None
) -> nn.Module:
    """The plain network that computes what ``model(image, domain)`` computes in evaluation.

    Every conditional norm becomes the layer it replaced, with the domain's scale, shift and running
    moments. If all norms do (the kin of each layer, ``cbn`` for batch norms), the result's
    `torch.nn.Module.state_dict` loads strictly into a fresh `timm.create_model`. If the old class
    cannot hold the statistics (``cin`` in place of a batch norm), the norm becomes a plain layer
    with fixed scale and shift: `torch.nn.InstanceNorm2d`, `torch.nn.GroupNorm`, timm's
    ``LayerNorm2d`` or ``RmsNorm2d``, then the old layer's activation and dropout. Perturbations are
    removed.

    Args:
        model: Not changed; the network is a copy.
        domain: One of its domains.
        fuse: Also fold norms into the convolutions before them, see `fuse_norms`; for evaluation
            only. A norm that cannot be folded stays a layer; the reason is logged.
        example: An input for ``fuse``; without it, noise of the size the backbone was trained with.

    Raises:
        ConditionError: No such domain.
        ConversionError: A norm that a domain alone does not decide, that no plain layer of torch or
            timm computes, or whose old class has no place for the domain's shift (RMS norms); the
            message names its path. Or an encoder end to end, or no ``example`` where one is needed.
    """
    if domain not in model.domain_names:
        raise ConditionError(unknown("domain", domain, model.domain_names))
    if model.end_to_end:
        raise ConversionError(
            "embedding: the norms of this model follow the embedding of each image, not the "
            "domain; export it with the encoder instead, as onnx or torch_export without --domain"
        )
    row = model.domain_names.index(domain)
    network = copy.deepcopy(model.backbone)
    remove_perturbations(network)
    norms = {
        norm: path for path, norm in network.named_modules() if isinstance(norm, ConditionalNorm)
    }
    plain: dict[nn.Module, nn.Module] = {
        norm: _fold(path, norm, row) for norm, path in norms.items()
    }
    network = replace_modules(network, plain)
    if fuse:
        _fuse(network, example)
    return network


def _fuse(network: nn.Module, example: Tensor | None) -> None:
    example = example_image(network) if example is None else example
    if example is None:
        raise ConversionError(
            f"{type(network).__name__}: its input size is unknown; pass an example= (N, C, H, W)"
        )
    for path, reason in fuse_norms(network, example).items():
        _log.info("%s stays a layer: %s", path, reason)


@torch.no_grad()
def _fold(path: str, norm: ConditionalNorm, row: int) -> nn.Module:
    """The plain layer for ``norm``, which is taken apart for it."""
    origin = norm.origin
    if origin is None:
        raise ConversionError(f"{path}: this norm replaced no layer, so it cannot be folded")
    kind = kind_of(origin)
    if kind is None:
        raise ConversionError(
            f"{path}: replaced a layer of the unknown class {type(origin).__name__}; register it "
            "with domainnorm.backbones.register_norm_class"
        )
    try:
        scale, shift = _pair(norm, row)
        if is_kin(origin, kind, norm.statistics):
            return _refill(origin, kind, norm, scale, shift, row).train(norm.training)
        layer = plain_kin(origin, kind, norm.statistics, len(scale))
        KINDS[type(layer)].write(layer, scale, shift)
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error
    carried = [part for part in (norm.drop, norm.act) if type(part) is not nn.Identity]
    return (nn.Sequential(layer, *carried) if carried else layer).train(norm.training)


def _refill(
    origin: nn.Module, kind: NormKind, norm: ConditionalNorm, scale: Tensor, shift: Tensor, row: int
) -> nn.Module:
    """A layer like ``origin``, of which nothing but the shapes is left, with a domain's tensors."""
    layer, statistics = copy.deepcopy(origin), norm.statistics
    moments: list[Tensor] = []
    if isinstance(statistics, RunningMoments):
        place = row if statistics.tracks_domains else 0
        moments = [statistics.get_buffer(name)[place] for name in statistics.row_names]
    kind.write(layer, scale, shift, *moments)
    constants = {name: getattr(statistics, name, None) for name in ("eps", "momentum")}
    kind.write_constants(layer, **constants)
    for name in ("drop", "act"):
        if kind.activation and hasattr(layer, name):
            setattr(layer, name, getattr(norm, name))
    tensors = chain(layer.named_parameters(), layer.named_buffers())
    lost = [name for name, tensor in tensors if tensor.is_meta and not scale.is_meta]
    if lost:
        raise ConversionError(
            f"{type(origin).__name__} had {', '.join(lost)}, which conversion did not keep; "
            "leave this layer out with `where`"
        )
    return layer


def _pair(norm: ConditionalNorm, row: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of the domain, (C,) each."""
    modulation = norm.modulation.eval()
    if modulation.needs:
        raise ConversionError(
            f"scale and shift depend on the {modulation.needs} of each image, not only on the "
            "domain; only norms that depend on the domain alone can be folded, such as 'dsbn'"
        )
    some = next(chain(modulation.parameters(), modulation.buffers()))
    label = torch.tensor([row], device=some.device)
    scale, shift = modulation(Condition(domain=label), label)
    return scale[0], shift[0]


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
    """A layer with scale and shift that takes these moments in the place of ``layer``.

    Raises:
        ConversionError: Neither torch nor timm has such a layer.
    """
    eps = _eps(statistics)
    if isinstance(statistics, InstanceStatistics):
        if statistics.stride > 1:
            raise ConversionError("stride above 1: no plain layer computes such moments")
        if kind.axes is not None:
            return _INSTANCE[kind.axes](num_features, eps=eps, affine=True)
        return nn.GroupNorm(num_features, num_features, eps=eps)
    if isinstance(statistics, GroupStatistics):
        return nn.GroupNorm(statistics.num_groups, num_features, eps=eps)
    if type(statistics) in _PLAIN and (statistics.tokens or kind.axes == 2):
        of_maps, of_tokens = _PLAIN[type(statistics)]
        return (of_tokens if statistics.tokens else of_maps)(num_features, eps=eps)
    name = STATISTICS.name_of(type(statistics))
    raise ConversionError(
        f"no plain layer of torch or timm has {name} statistics in place of a "
        f"{type(layer).__name__}; keep the DomainModel, or leave this layer out with `where`"
    )


def _eps(statistics: Statistics) -> float:
    return float(getattr(statistics, "eps", 0.0))
