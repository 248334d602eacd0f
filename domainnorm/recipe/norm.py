"""Section ``norm`` of a recipe: which normalization replaces which layers, and what it takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from domainnorm.errors import unknown
from domainnorm.norms.catalogue import CATALOGUE, rules_of
from domainnorm.recipe.problems import Problems, spelled
from domainnorm.recipe.schema import Named, Recipe
from domainnorm.recipe.sections import read_section
from domainnorm.registry import METHODS, MODULATIONS, STATISTICS, Parameter, Registry

_PATTERN = re.compile(r"[\w.*?\[\]!-]+")
_OWN_KEYS = ("name", "statistics", "modulation")
_NEEDED = {"map": "a map with every image", "style": "the moments of a style image"}
_EARLY = ("early", "stem")
_OF_PIXELS = ("instance", "thumbnail", "mixed")
_EXPECTED = "a norm name, {statistics, modulation, where}, rules such as {early: cin}, or null"


def read_norm(value: Any, problems: Problems) -> Any:
    """The checked ``norm:`` value as plain data, in the form it was written.

    Args:
        value: None (each layer's function-preserving kin), a catalogue name,
            ``{name, where, ...}``, ``{statistics, modulation, where, ...}`` or rules
            ``{pattern: name, mapping or None}`` with the patterns ``all``, ``stem``, ``early``,
            ``late``, ``encoder``, ``decoder`` and globs over module paths.
        problems: Takes what is wrong.
    """
    if value is None:
        return None
    if not _is_rules(value):
        return _read_one(value, "norm", problems, may_limit=True)
    if not value:
        problems.add("norm", f"got an empty mapping, expected {_EXPECTED}")
    rules = {}
    for pattern, norm in value.items():
        if pattern in ("where", "options"):
            problems.add("norm", f"got '{pattern}' without a name, expected {_EXPECTED}")
            continue
        key = f"norm.{pattern}"
        _check_pattern(pattern, key, problems)
        one = None if norm is None else _read_one(norm, key, problems, may_limit=False)
        rules[pattern] = one
    return rules


def reads_domains(value: Any) -> bool:
    """Whether a norm of a ``norm:`` value, checked or not, may differ between domains."""
    return any(map(_one_reads_domains, _stated(value)))


def embedding_sizes(value: Any) -> set[int]:
    """Sizes of the embeddings that norms of a ``norm:`` value, checked or not, take, if any do."""
    found = set()
    for norm in _stated(value):
        modulation = _halves(norm).get("modulation")
        if modulation not in MODULATIONS.names():
            continue
        taken = MODULATIONS.entry(modulation).parameters.get("embedding_size")
        if taken is not None:
            given = norm if isinstance(norm, Mapping) else {}
            found.add(given.get("embedding_size", taken.default))
    return found


def lacking(value: Any) -> set[str]:
    """What none of the named norms of a checked ``norm:`` value has.

    Returns:
        Of ``moments`` (running ones), ``rows`` (of domains) and ``weights``; nothing where layers
        are said to keep their kin.
    """
    halves = [_halves(norm) for norm in _stated(value)]
    if not all(halves):
        return set()
    statistics = [STATISTICS.entry(names["statistics"]).constants for names in halves]
    modulations = [MODULATIONS.entry(names["modulation"]).constants for names in halves]
    found = {
        "moments": any("running_mean" in one.get("row_names", ()) for one in statistics),
        "rows": any(one.get("row_names") for one in modulations),
        "weights": any(names["modulation"] != "none" for names in halves),
    }
    return {name for name, there in found.items() if not there}


def takes_pixels(value: Any) -> bool:
    """Whether a norm of a checked ``norm:`` value has moments over pixels of late, small maps."""
    rules = _rules(value)
    if isinstance(value, Mapping) and value.get("where") in _EARLY:
        rules = {}
    late = [norm for pattern, norm in rules.items() if pattern not in _EARLY]
    return any(_inherits(_halves(norm).get("statistics"), _OF_PIXELS) for norm in late)


def _stated(value: Any) -> list[Any]:
    """The norms that a ``norm:`` value names, None for layers that keep their kin."""
    return list(_rules(value).values())


def _rules(value: Any) -> Mapping[str, Any]:
    """A ``norm:`` value as rules, a name alone as what it means."""
    if _is_rules(value):
        return value  # type: ignore[no-any-return]
    name = value.get("name") if isinstance(value, Mapping) and len(value) == 1 else value
    return rules_of(name) if isinstance(name, str) else {"all": value}


def _one_reads_domains(norm: Any) -> bool:
    names = _halves(norm)
    modulation = names.get("modulation")
    # Each layer's kin has rows; one part of mixed statistics may.
    if norm is None or _inherits(names.get("statistics"), ("domain", "mixed")):
        return True
    return modulation not in MODULATIONS.names() or bool(
        MODULATIONS.entry(modulation).constants.get("row_names")
    )


def _inherits(statistics: Any, names: Iterable[str]) -> bool:
    """Whether statistics of a name, known or not, are some of these or made from them."""
    return statistics in STATISTICS.names() and not STATISTICS.kin(statistics).isdisjoint(names)


def _halves(norm: Any) -> dict[str, Any]:
    """Statistics and modulation of one norm, as far as they are known."""
    if norm is None:
        return {}
    section = norm if isinstance(norm, Mapping) else {"name": norm}
    return _read_names(section, "norm", Problems())


def _is_rules(value: Any) -> bool:
    return isinstance(value, Mapping) and not any(key in value for key in _OWN_KEYS)


def _read_one(value: Any, key: str, problems: Problems, *, may_limit: bool) -> Any:
    if isinstance(value, str):
        if value not in CATALOGUE:
            problems.add(key, unknown("norm", value, CATALOGUE))
        else:
            _check_needs(value, CATALOGUE[value].modulation, key, problems)
        return value
    if not isinstance(value, Mapping):
        problems.expect(key, value, _EXPECTED)
        return value
    section = dict(value)
    read: dict[str, Any] = {}
    if may_limit and "where" in section:
        read["where"] = section.pop("where")
        _check_where(read["where"], f"{key}.where", problems)
    names = _read_names(section, key, problems)
    parameters = _parameters(names, key, problems)
    options = {name: section[name] for name in section if name not in _OWN_KEYS}
    if parameters is None:
        return value
    half = "name" if "name" in section else "modulation"
    _check_needs(section[half], names["modulation"], f"{key}.{half}", problems)
    checked = read_section(options, parameters, key, problems)
    given = {name: checked[name] for name in options if name in checked}
    return {**{name: value[name] for name in _OWN_KEYS if name in value}, **read, **given}


def _read_names(section: Mapping[str, Any], key: str, problems: Problems) -> dict[str, Any]:
    """The statistics and modulation of a mapping, spelled out or looked up in the catalogue."""
    if "name" not in section:
        return {"statistics": section.get("statistics"), "modulation": section.get("modulation")}
    for half in ("statistics", "modulation"):
        if half in section:
            text = "give either 'name' or 'statistics' and 'modulation'"
            problems.add(f"{key}.{half}", f"got {spelled(section[half])} beside a name, {text}")
    name = section["name"]
    if not isinstance(name, str) or name not in CATALOGUE:
        problems.add(f"{key}.name", unknown("norm", name, CATALOGUE))
        return {}
    return {"statistics": CATALOGUE[name].statistics, "modulation": CATALOGUE[name].modulation}


def _parameters(
    names: Mapping[str, Any], key: str, problems: Problems
) -> dict[str, Parameter] | None:
    found: dict[str, Parameter] = {}
    registries: dict[str, Registry] = {"statistics": STATISTICS, "modulation": MODULATIONS}
    known = bool(names)
    for half, name in names.items():
        registry = registries[half]
        if name is None:
            text = f"missing, expected one of {', '.join(registry.names())}"
            problems.add(f"{key}.{half}", text)
            known = False
        elif name not in registry.names():
            problems.add(f"{key}.{half}", unknown(half, name, registry.names()))
            known = False
        else:
            found.update(registry.entry(name).parameters)
    return found if known else None


def _check_needs(asked: str, modulation: str, key: str, problems: Problems) -> None:
    """Refuse a modulation that needs something which comes with a batch."""
    needs = MODULATIONS.entry(modulation).constants.get("needs")
    if needs:
        what = _NEEDED.get(needs, needs)
        problems.add(
            key,
            f"'{asked}' needs {what}, which a recipe cannot give; use a modulation that depends on "
            "the domain, 'table' or 'hyper' (norms 'cin', 'cbn', 'film'), or pass "
            f"{needs}= to the model in Python",
        )


def _check_where(where: Any, key: str, problems: Problems) -> None:
    patterns = where if isinstance(where, list) else [where]
    if not patterns:
        problems.add(
            key, "got an empty list, expected all, stem, early, late, encoder, decoder or paths"
        )
    for pattern in patterns:
        _check_pattern(pattern, key, problems)


def _check_pattern(pattern: Any, key: str, problems: Problems) -> None:
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
        expected = "all, stem, early, late, encoder, decoder or a module path with * for any"
        problems.expect(key, pattern, expected)


def needs_network(recipe: Recipe) -> bool:
    """Whether only the network can tell if the methods and norms of a run go together.

    Named norms may have nothing that a method needs, but the network may have layers that keep
    their kin; moments over the pixels of an image want a map of more than one; and a method may
    name places.
    """
    without, methods = lacking(recipe.norm), (recipe.method, *recipe.compare)
    asked = any(_needs(named) & without for named in methods)
    placed = any(named.options.get("where", "all") != "all" for named in methods)
    return asked or placed or takes_pixels(recipe.norm)


def _needs(named: Named) -> set[str]:
    """What a method with its options asks of norms."""
    found = {str(METHODS.entry(named.name).constants.get("needs", ""))}
    if named.options.get("rows_weight"):
        found.add("rows")
    if named.options.get("train") == "norms":
        found.add("weights")
    return found
