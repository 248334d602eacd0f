"""Norms by name."""

from __future__ import annotations

from typing import Any

from domainnorm.errors import DomainNormError, UnknownNameError, unknown
from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.norms.layer import ConditionalNorm
from domainnorm.ranges import problem_of
from domainnorm.registry import MODULATIONS, STATISTICS, Entry, Parameter
from domainnorm.slot import ConditionSlot


def list_norms() -> list[str]:
    """Names of the catalogue, for `create_norm` and a recipe's ``norm``."""
    return list(CATALOGUE)


def create_norm(
    name: str,
    num_features: int,
    num_domains: int = 1,
    *,
    slot: ConditionSlot | None = None,
    path: str = "norm",
    **options: Any,
) -> ConditionalNorm:
    """Make a norm from the catalogue, or from both halves spelled ``"statistics*modulation"``.

    Args:
        name: A name of `list_norms` (``"cin"``), or two halves (``"instance*table"``).
        num_features: C.
        num_domains: D.
        slot: Shared by all norms of one model; a new one when None.
        path: Module path, for messages.
        **options: Keywords of the statistics or the modulation (``eps``, ``momentum``, …); those
            that one half does not have go to the other.

    Raises:
        UnknownNameError: No such norm or half; the message gives the nearest.
        DomainNormError: An option that neither half has, a value that an option cannot have, or
            halves that do not fit each other.

    Example:
        >>> from domainnorm.condition import Condition
        >>> norm = create_norm("dsbn", 64, num_domains=3)
        >>> with norm.slot.holding(Condition(domain=labels)):
        ...     y = norm(x)
    """
    statistics, modulation = _halves(name)
    for argument, number in (("num_features", num_features), ("num_domains", num_domains)):
        if number < 1:
            raise DomainNormError(f"norm '{name}': {argument}: got {number}, expected at least 1")
    if name in CATALOGUE:
        options = {**CATALOGUE[name].options, **options}
    _check_pair(name, statistics, modulation, options)
    halves = [
        half.load()(num_features, num_domains, **_own(half, options))
        for half in (statistics, modulation)
    ]
    return ConditionalNorm(halves[0], halves[1], slot, path, num_features)


def norm_options(name: str) -> dict[str, Parameter]:
    """The options of a norm, those of its statistics and of its modulation, by name."""
    statistics, modulation = _halves(name)
    return {**statistics.parameters, **modulation.parameters}


def _check_pair(name: str, statistics: Entry, modulation: Entry, options: dict[str, Any]) -> None:
    wanted = norm_options(name)
    tokens = bool(options.get("tokens"))
    if tokens and "tokens" not in wanted:
        raise DomainNormError(
            f"norm '{name}': {statistics.name} statistics are over the pixels of a channel, "
            "there is no form for tokens; take layer or rms statistics (norm 'cln' or 'crms')"
        )
    if tokens and modulation.name in ("style", "spatial"):
        raise DomainNormError(
            f"norm '{name}': {modulation.name} modulation needs feature maps, not tokens; "
            "take another modulation (norm 'cln'), or leave tokens=False"
        )
    for option, value in options.items():
        if option not in wanted:
            raise DomainNormError(f"norm '{name}': " + unknown("option", option, wanted))
        if problem := problem_of(wanted[option], value):
            raise DomainNormError(f"norm '{name}': {option}: {problem}")


def _halves(name: str) -> tuple[Entry, Entry]:
    if name in CATALOGUE:
        spec = CATALOGUE[name]
        return STATISTICS.entry(spec.statistics), MODULATIONS.entry(spec.modulation)
    statistics, star, modulation = name.partition("*")
    if not star:
        raise UnknownNameError("norm", name, CATALOGUE)
    return STATISTICS.entry(statistics.strip()), MODULATIONS.entry(modulation.strip())


def _own(half: Entry, options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in half.parameters}
