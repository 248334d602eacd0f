"""Domains added to a model, taken away and mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from domainnorm.backbones.model import DomainModel
from domainnorm.backbones.owned import OwnedRows
from domainnorm.backbones.rows import mix_rows, set_rows
from domainnorm.errors import ConditionError, unknown


def add_domain(model: DomainModel, name: str, start: str = "mean") -> None:
    """Give the model a row for one more domain, its last.

    Parameters with a row per domain are replaced by larger ones: an optimizer made before does not
    know them, make it anew.

    Args:
        model: Changed in place; the other domains keep their labels and outputs.
        name: The new domain.
        start: Domain whose rows it starts with, or ``mean`` for the mixture of all (see
            `mix_rows`), which a domain that is called so does not change.

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
    """Take a domain's rows out of the model.

    Labels of the domains after it go down by one. Parameters are replaced as in `add_domain`.

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
    """Add a domain between others.

    Its scale and shift are weighted sums (those of its code or embedding, where they come from
    one), its running moments those of the mixture distribution; see `mix_rows`. In evaluation
    ``model(image, name)`` is ``model(image, weights=...)`` with these weights for every sample.

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
    """``name``, if a domain can be called so.

    Raises:
        ConditionError: It is empty or cannot be printed.
    """
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
    owned = list(model.domain_rows())
    if model.encoder is not None:  # a new domain has no images there yet
        gaussians = model.encoder.gaussians
        owned += [OwnedRows(name, gaussians, name) for name in gaussians.row_names]
    for rows, changed in zip(owned, [change(rows.tensor) for rows in owned], strict=True):
        old = rows.tensor
        is_parameter = isinstance(old, nn.Parameter)
        new = nn.Parameter(changed, requires_grad=old.requires_grad) if is_parameter else changed
        setattr(rows.owner, rows.name, new)
