"""One domain of a model as the plain network that it was converted from."""

from __future__ import annotations

import copy
import logging
from itertools import chain

import torch
from torch import Tensor, nn

from domainnorm.backbones.create import example_image
from domainnorm.backbones.fuse import fuse_norms
from domainnorm.backbones.insert import remove_perturbations
from domainnorm.backbones.model import DomainModel
from domainnorm.backbones.plain import is_kin, plain_kin, write_pair
from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, ConversionError, unknown
from domainnorm.norms import ConditionalNorm
from domainnorm.norms.running import RunningMoments

_log = logging.getLogger(__name__)


def fold_domain(
    model: DomainModel, domain: str, fuse: bool = False, *, example: Tensor | None = None
) -> nn.Module:
    """The plain network that computes what ``model(image, domain)`` computes in evaluation.

    Every conditional norm becomes the layer it replaced, with the scale, shift and running moments
    of the domain: where all of them do (``dsbn``, ``cbn``), `torch.nn.Module.state_dict` loads
    strictly into a fresh `timm.create_model`. Where the old class cannot hold the statistics
    (``cin`` in place of a batch norm), it becomes a plain layer of fixed scale and shift:
    `torch.nn.InstanceNorm2d`, `torch.nn.GroupNorm`, timm's ``LayerNorm2d`` or ``RmsNorm2d``,
    followed by the activation and dropout that the old layer carried. Perturbations are left out.

    Args:
        model: Left as it is; the network is a copy.
        domain: One of its domains.
        fuse: Also fold norms into the convolutions before them, see `fuse_norms`; for evaluation
            only. What cannot be folded stays a layer, which is logged with the reason.
        example: An input for ``fuse``; without it, noise of the size the backbone was trained with.

    Raises:
        ConditionError: No such domain.
        ConversionError: A norm that a domain alone does not decide, or that no plain layer of torch
            or timm computes; the message names its path. Or no ``example`` where one is needed.
    """
    if domain not in model.domain_names:
        raise ConditionError(unknown("domain", domain, model.domain_names))
    row = model.domain_names.index(domain)
    network = copy.deepcopy(model.backbone)
    remove_perturbations(network)
    places = [
        (path, norm)
        for path, norm in network.named_modules(remove_duplicate=False)
        if isinstance(norm, ConditionalNorm)
    ]
    plain = {norm: _fold(path, norm, row) for path, norm in reversed(places)}
    for path, norm in places:
        if not path:
            network = plain[norm]
            continue
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, plain[norm])
    if fuse:
        _fuse(network, example)
    return network


def _fuse(network: nn.Module, example: Tensor | None) -> None:
    example = example_image(network) if example is None else example
    if example is None:
        raise ConversionError(
            f"{type(network).__name__}: no input is known for it, pass an example= (N, C, H, W)"
        )
    for path, reason in fuse_norms(network, example).items():
        _log.info("%s stays a layer: %s", path, reason)


@torch.no_grad()
def _fold(path: str, norm: ConditionalNorm, row: int) -> nn.Module:
    """The plain layer for ``norm``, which is taken apart for it."""
    origin, statistics = norm.origin, norm.statistics
    if origin is None:
        raise ConversionError(f"{path}: replaced no layer, so there is none to go back to")
    try:
        scale, shift = _pair(norm, row)
        if not is_kin(origin, statistics):
            layer = plain_kin(statistics, origin, len(scale))
            write_pair(layer, scale, shift)
            carried = [part for part in (norm.drop, norm.act) if type(part) is not nn.Identity]
            return (nn.Sequential(layer, *carried) if carried else layer).train(norm.training)
        layer = copy.deepcopy(origin)
        write_pair(layer, scale, shift)
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error
    for name in ("eps", "momentum"):
        if hasattr(layer, name):
            setattr(layer, name, getattr(statistics, name))
    if isinstance(statistics, RunningMoments):
        row = row if statistics.tracks_domains else 0
        for name in statistics.row_names:
            setattr(layer, name, statistics.get_buffer(name)[row].clone())
    for name in ("drop", "act"):
        if hasattr(layer, name):
            setattr(layer, name, getattr(norm, name))
    return layer.train(norm.training)


def _pair(norm: ConditionalNorm, row: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of the domain, (C,) each."""
    modulation = norm.modulation.eval()
    if modulation.needs:
        raise ConversionError(
            f"scale and shift depend on the {modulation.needs} of each image, which a domain's "
            "name does not tell; only norms that the domain decides can be folded, such as "
            "table × domain (dsbn)"
        )
    some = next(chain(modulation.parameters(), modulation.buffers()))
    label = torch.tensor([row], device=some.device)
    scale, shift = modulation(Condition(domain=label), label)
    return scale[0], shift[0]
