"""Which layers of a network differ most between two domains."""

from __future__ import annotations

from typing import NamedTuple

import torch

from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ConditionError, unknown
from domainnorm.norms.statistics.base import RunningMoments
from domainnorm.slot import divergence


class LayerDifference(NamedTuple):
    """How one layer treats two domains.

    Args:
        path: Of the norm, below the backbone.
        moments: Symmetric Kullback-Leibler divergence of the running moments, averaged over
            channels (see `divergence`); nan where the domains have none of their own.
        scale: Root mean square difference of the scales, as a share of their root mean square; nan
            where scale and shift are no function of the domain alone.
        shift: Likewise of the shifts, as a share of the root mean square of the scales.
    """

    path: str
    moments: float
    scale: float
    shift: float


@torch.no_grad()
def layer_differences(model: DomainModel, first: str, second: str) -> list[LayerDifference]:
    """Compare two domains of a model, layer by layer, in definition order.

    Args:
        model: Not changed.
        first: One of its domains.
        second: Another.

    Raises:
        ConditionError: An unknown domain.

    Reference:
        Pan et al., Two at Once (IBN-Net), ECCV 2018, arXiv:1807.09441, sec. 3.2 (divergence of the
        features of two domains by layer). Differs: of running moments.
    """
    for name in (first, second):
        if name not in model.domain_names:
            raise ConditionError(unknown("domain", name, model.domain_names))
    rows = [model.domain_names.index(name) for name in (first, second)]
    found = []
    for norm in model.norms():
        moments = scale = shift = float("nan")
        statistics, table = norm.statistics, norm.modulation.table()
        if isinstance(statistics, RunningMoments) and statistics.tracks_domains:
            one, other = (
                (statistics.running_mean[[row]], statistics.running_var[[row]]) for row in rows
            )
            moments = float(divergence(one, other, statistics.eps))
        if table is not None and len(table[0]) == model.num_domains:
            scales, shifts = (values[rows].double() for values in table)
            size = scales.square().mean().sqrt().clamp(min=1e-12)
            scale = float((scales[0] - scales[1]).square().mean().sqrt() / size)
            shift = float((shifts[0] - shifts[1]).square().mean().sqrt() / size)
        found.append(LayerDifference(norm.path, moments, scale, shift))
    return found
