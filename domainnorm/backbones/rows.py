"""Rows of domains: what each domain owns inside a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ConditionError, unknown
from domainnorm.norms.statistics.base import RunningMoments


def domain_parameters(model: DomainModel) -> list[nn.Parameter]:
    """Scales and shifts of all conditional norms."""
    return [parameter for norm in model.norms() for parameter in norm.modulation.parameters()]


def set_rows(
    model: DomainModel, target: str, sources: Sequence[str], *, moments: bool = True
) -> None:
    """Make ``target``'s rows those of ``sources``: a copy of one, or the mean of several.

    See `mix_rows`, here with equal weights.

    Args:
        model: Changed in place.
        target: Domain whose rows are overwritten.
        sources: Domains they come from.
        moments: Running moments too; otherwise ``target`` keeps its own.

    Raises:
        ConditionError: A name that is not a domain of the model, or no sources.
    """
    if not sources:
        raise ConditionError(f"sources: none given for the rows of '{target}'; name a domain")
    weights = {name: 1 / len(set(sources)) for name in sources}
    mix_rows(model, target, weights, moments=moments)


@torch.no_grad()
def mix_rows(
    model: DomainModel, target: str, weights: Mapping[str, float], *, moments: bool = True
) -> None:
    """Make ``target``'s rows a mixture of those of other domains.

    Scales, shifts and codes are weighted sums, ``Σ w[d] scale[d]``; running moments are those of
    the mixture distribution, ``mean = Σ w[d] mean[d]``, ``var = Σ w[d] (var[d] + (mean[d] -
    mean)²)``. In evaluation that is what the weights ``w`` give as soft domain weights.

    Args:
        model: Changed in place.
        target: Domain whose rows are overwritten.
        weights: Domain -> weight ≥ 0; they sum to one.
        moments: Running moments too; otherwise ``target`` keeps its own.

    Raises:
        ConditionError: A name that is not a domain of the model, or weights that are not such.
    """
    for name in (target, *weights):
        if name not in model.domain_names:
            raise ConditionError(unknown("domain", name, model.domain_names))
    values = list(weights.values())
    if not all(value >= 0 for value in values) or not math.isclose(sum(values), 1, abs_tol=1e-3):
        given = ", ".join(f"{name} {value:g}" for name, value in weights.items())
        raise ConditionError(
            f"weights of '{target}': got {given}, expected numbers ≥ 0 that sum to one"
        )
    to = model.domain_names.index(target)
    rows = [model.domain_names.index(name) for name in weights]
    for norm in model.norms():
        for parameter in norm.modulation.rows():
            parameter[to] = _average(parameter[rows], values)
        if not moments or not isinstance(norm.statistics, RunningMoments):
            continue
        if norm.statistics.tracks_domains:
            _mix_moments(norm.statistics, to, rows, values)


def _mix_moments(
    statistics: RunningMoments, to: int, rows: Sequence[int], weights: Sequence[float]
) -> None:
    mean, var = statistics.running_mean, statistics.running_var
    centre = _average(mean[rows], weights)
    spread = (mean[rows] - centre).square()
    mean[to], var[to] = centre, _average(var[rows] + spread, weights)
    statistics.num_batches_tracked[to] = statistics.num_batches_tracked[list(rows)].max()


def _average(rows: Tensor, weights: Sequence[float]) -> Tensor:
    """(K, *) -> (*), exactly the row where there is one."""
    if len(rows) == 1:
        return rows[0]
    shares = rows.new_tensor(weights) / sum(weights)
    average: Tensor = torch.tensordot(shares, rows, dims=1)
    return average
