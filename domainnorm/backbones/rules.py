"""What a recipe's ``norm`` means for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domainnorm.backbones.where import Regions
from domainnorm.errors import ConversionError

NormRule = str | Mapping[str, Any] | None
_SPEC_KEYS = {"name", "statistics", "modulation"}


@dataclass(frozen=True)
class NormChoice:
    """The norm one layer gets.

    Args:
        name: Catalogue name or ``"statistics*modulation"``.
        options: Keywords for `domainnorm.norms.create_norm`.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def resolve_rules(
    norm: NormRule, regions: Regions, where: str | Sequence[str] = "all"
) -> dict[str, NormChoice]:
    """The choice for every layer that is to be converted, by module path.

    Args:
        norm: None (``dsbn``), a name, ``{name: …}`` or ``{statistics: …, modulation: …}`` with
            options and an optional ``where``, or rules ``{pattern: name or mapping}`` of which the
            last that matches a layer decides. ``cin`` alone, without ``where``, is
            ``{early: cin, late: dsbn}``: instance statistics help early and destroy late features.
        regions: The norm layers of the network.
        where: Limits the whole conversion.

    Raises:
        ConversionError: A pattern that matches no layer, or a mapping that names no norm.
    """
    chosen: dict[str, NormChoice] = {}
    within = regions.select(where)
    for pattern, choice in _pairs(norm, where):
        for path in regions.select(pattern):
            chosen[path] = choice
    return {path: chosen[path] for path in regions.paths if path in chosen and path in within}


def _pairs(
    norm: NormRule, where: str | Sequence[str]
) -> list[tuple[str | Sequence[str], NormChoice]]:
    if norm is None:
        return [("all", NormChoice("dsbn"))]
    if isinstance(norm, str):
        if norm == "cin" and where == "all":
            return [("early", NormChoice("cin")), ("late", NormChoice("dsbn"))]
        return [("all", NormChoice(norm))]
    if _SPEC_KEYS & set(norm):
        options = {key: value for key, value in norm.items() if key != "where"}
        if set(options) == {"name"} and "where" not in norm:
            return _pairs(str(options["name"]), where)
        return [(norm.get("where", "all"), _choice(options))]
    if not norm:
        raise ConversionError("norm: no rules; name a norm, e.g. {early: cin, late: dsbn}")
    return [
        (pattern, _choice({"name": rule} if isinstance(rule, str) else dict(rule)))
        for pattern, rule in norm.items()
    ]


def _choice(options: dict[str, Any]) -> NormChoice:
    name = options.pop("name", None)
    if name is None:
        try:
            name = f"{options.pop('statistics')}*{options.pop('modulation')}"
        except KeyError as error:
            raise ConversionError(
                f"norm: {error} is missing; give 'name', or both 'statistics' and 'modulation'"
            ) from None
    return NormChoice(str(name), options)
