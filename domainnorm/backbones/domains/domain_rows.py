"""Rows of domains in a model: added, taken away, mixed and compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from domainnorm.backbones.domains.owned_rows import encoder_rows
from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ConditionError, unknown
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.slot import divergence


def add_domain(model: DomainModel, name: str, start: str = "mean") -> None:
    """Add a row for a new domain at the end of the model's domains.

    Larger parameters replace those with a row per domain: make a new optimizer, since an old one
    does not have them.

    Args:
        model: Changed in place; the other domains keep their labels and outputs.
        name: The new domain.
        start: Domain whose rows it copies, or ``mean`` for the mixture of all (see `mix_rows`),
            even if a domain has the name ``mean``.

    Raises:
        ConditionError: A name that is taken or cannot be printed, or an unknown ``start``.
    """
    _check_new(model, name)
    if start != "mean" and start not in model.domain_names:
        raise ConditionError("start: " + unknown("domain", start, ("mean", *model.domain_names)))
    sources = model.domain_names if start == "mean" else (start,)
    _rebuild(model, lambda rows: torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])]))
    model.domain_names = (*model.domain_names, name)
    set_rows(model, name, sources)


def remove_domain(model: DomainModel, name: str) -> None:
    """Remove a domain's rows from the model.

    Labels of later domains decrease by one. Parameters are replaced as in `add_domain`.

    Args:
        model: Changed in place.
        name: A domain, not the only one.

    Raises:
        ConditionError: No such domain, or it is the only one.
    """
    if name not in model.domain_names:
        raise ConditionError(unknown("domain", name, model.domain_names))
    if model.num_domains == 1:
        raise ConditionError(f"domain '{name}' is the only one of this model; add another first")
    kept = [row for row, other in enumerate(model.domain_names) if other != name]
    _rebuild(model, lambda rows: rows[kept])
    model.domain_names = tuple(model.domain_names[row] for row in kept)


def interpolate_domains(model: DomainModel, name: str, weights: Mapping[str, float]) -> None:
    """Add a domain between others, as a weighted mixture of them.

    Its scale and shift (or their code or embedding) are weighted sums. Its running moments are
    those of the mixture distribution; see `mix_rows`. In evaluation ``model(image, name)`` equals
    ``model(image, weights=...)`` with these weights for every sample.

    Args:
        model: Changed in place, as by `add_domain`.
        name: The new domain.
        weights: Domain -> weight ≥ 0; they sum to one.

    Raises:
        ConditionError: A name that is taken, an unknown domain, or weights that are not such.

    Example:
        >>> interpolate_domains(model, "dusk", {"day": 0.3, "night": 0.7})
    """
    _check_new(model, name)
    for domain in weights:
        if domain not in model.domain_names:
            raise ConditionError(unknown("domain", domain, model.domain_names))
    add_domain(model, name)
    try:
        mix_rows(model, name, weights)
    except ConditionError:
        remove_domain(model, name)
        raise


def check_name(name: str) -> str:
    """``name``, if a domain can be called so; ConditionError if not."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ConditionError(f"domain: got {name!r}, expected a name of printable characters")
    return name


def _check_new(model: DomainModel, name: str) -> None:
    if check_name(name) in model.domain_names:
        raise ConditionError(
            f"domain '{name}': this model has it already ({', '.join(model.domain_names)}); give "
            "the new one another name, or remove_domain first"
        )


@torch.no_grad()
def _rebuild(model: DomainModel, change: Callable[[Tensor], Tensor]) -> None:
    """Replace every tensor with a row per domain; all are made before the first is put in."""
    owned = [*model.domain_rows(), *encoder_rows(model.encoder)]
    for rows, changed in zip(owned, [change(rows.tensor) for rows in owned], strict=True):
        old = rows.tensor
        is_parameter = isinstance(old, nn.Parameter)
        new = nn.Parameter(changed, requires_grad=old.requires_grad) if is_parameter else changed
        setattr(rows.owner, rows.name, new)


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
