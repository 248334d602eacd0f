"""Rows of domains: what each domain owns inside a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ConditionError, unknown
from domainnorm.norms.running import RunningMoments


def domain_parameters(model: DomainModel) -> list[nn.Parameter]:
    """Scales and shifts of all conditional norms."""
    return [parameter for norm in model.norms() for parameter in norm.modulation.parameters()]


@torch.no_grad()
def set_rows(model: DomainModel, target: str, sources: Sequence[str]) -> None:
    """Make ``target``'s rows those of ``sources``: a copy of one, or the mean of several.

    Scales and shifts are averaged; running moments become those of the mixture of the sources,
    ``mean = avg mean[d]``, ``var = avg (var[d] + mean[d]²) - mean²``.

    Args:
        model: Changed in place.
        target: Domain whose rows are overwritten.
        sources: Domains they come from.

    Raises:
        ConditionError: A name that is not a domain of the model, or no sources.
    """
    if not sources:
        raise ConditionError(f"sources: none given for the rows of '{target}'; name a domain")
    for name in (target, *sources):
        if name not in model.domain_names:
            raise ConditionError(unknown("domain", name, model.domain_names))
    to = model.domain_names.index(target)
    rows = [model.domain_names.index(name) for name in sources]
    for norm in model.norms():
        for parameter in norm.modulation.rows():
            parameter[to] = parameter[rows].mean(0) if len(rows) > 1 else parameter[rows[0]]
        if isinstance(norm.statistics, RunningMoments):
            _set_moments(norm.statistics, to, rows, model)


def _set_moments(
    statistics: RunningMoments, to: int, rows: Sequence[int], model: DomainModel
) -> None:
    mean, var = statistics.running_mean, statistics.running_var
    if not _has_rows(mean, model):
        return
    if len(rows) == 1:
        mean[to], var[to] = mean[rows[0]], var[rows[0]]
    else:
        centre = mean[rows].mean(0)
        spread = (mean[rows] - centre).square().mean(0)
        mean[to], var[to] = centre, var[rows].mean(0) + spread
    statistics.num_batches_tracked[to] = statistics.num_batches_tracked[list(rows)].max()


def _has_rows(tensor: Tensor, model: DomainModel) -> bool:
    return tensor.ndim == 2 and tensor.shape[0] == model.num_domains
