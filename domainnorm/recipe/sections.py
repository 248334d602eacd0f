"""Sections of a recipe, read by a schema: fields of a dataclass or a registered signature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import MISSING, fields, make_dataclass
from operator import ge, gt, lt
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from domainnorm.errors import nearest, unknown
from domainnorm.ranges import problem_of
from domainnorm.recipe.meanings import unknown_key
from domainnorm.recipe.problems import Problems, spelled
from domainnorm.recipe.schema import Named
from domainnorm.registry import REQUIRED, Parameter, Registry

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
    dict: "a mapping",
    None: "null",
    NoneType: "null",
}
_BOUNDS = {"minimum": (ge, "at least"), "above": (gt, "more than"), "below": (lt, "less than")}


def fixed_parameters(schema: type) -> dict[str, Parameter]:
    """The keys of a dataclass in the form the registry uses for signatures."""
    hints = get_type_hints(schema)
    found = {}
    for item in fields(schema):
        default = REQUIRED if item.default is MISSING else item.default
        if item.default_factory is not MISSING:
            default = item.default_factory()
        found[item.name] = Parameter(item.name, hints[item.name], default)
    return found


def read_section(
    section: Any,
    parameters: Mapping[str, Parameter],
    key: str,
    problems: Problems,
    *,
    closed: bool = True,
) -> dict[str, Any]:
    """The values of a section, converted to their types, defaults filled in.

    Every key is set on its own in an OmegaConf structured config, so that each wrong one is found.
    A key with a problem gets its default; a required one is left out. None counts as an empty
    section. The key is dotted, and empty for the recipe itself; unless the section is ``closed``,
    keys outside ``parameters`` are no problems.
    """
    if section is None:
        section = {}
    if not isinstance(section, Mapping):
        problems.expect(key, section, f"a mapping with {', '.join(parameters)}")
        section = {}
    for name in section:
        if closed and name not in parameters:
            problems.add(f"{key}.{name}", unknown_key(name, parameters, key))
    # Fields of a class cannot be called `as`, keys can.
    hints = [(f"{name}_", parameter.annotation) for name, parameter in parameters.items()]
    schema = OmegaConf.structured(make_dataclass("Section", hints))
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        where = f"{key}.{name}" if key else name
        if name in section:
            try:
                given = _widened(section[name], parameter.annotation)
                values[name] = _converted(schema, f"{name}_", given)
                if problem := problem_of(parameter, values[name]):
                    problems.add(where, problem)
                continue
            except (OmegaConfBaseException, ValueError, OverflowError):
                problems.add(where, _refusal(section[name], parameter.annotation))
        elif parameter.default is REQUIRED:
            problems.add(where, f"missing, expected {describe(parameter.annotation)}")
        if parameter.default is not REQUIRED:
            values[name] = deepcopy(parameter.default)
    return values


def read_fixed(
    section: Any, schema: type, key: str, problems: Problems, *, closed: bool = True
) -> dict[str, Any]:
    """`read_section` for a dataclass, whose fields may carry bounds as metadata."""
    values = read_section(section, fixed_parameters(schema), key, problems, closed=closed)
    for item in fields(schema):
        value = values.get(item.name)
        if isinstance(value, (int, float)):
            for word, bound in item.metadata.items():
                fits, phrase = _BOUNDS[word]
                if not fits(value, bound):
                    problems.expect(f"{key}.{item.name}", value, f"{phrase} {bound}")
    return values


def read_named(
    value: Any,
    registry: Registry,
    key: str,
    problems: Problems,
    more: Mapping[str, Parameter] | None = None,
) -> Named | None:
    """A registered name with its options, or None when the name cannot be found.

    The value is a name, or a mapping with ``name`` and keys of the signature, or of ``more``.
    """
    section = {"name": value} if isinstance(value, str) else value
    if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
        expected = f"a {registry.kind} name, or a mapping with 'name'"
        problems.expect(key, section, f"{expected}; known: {', '.join(registry.names())}")
        return None
    name = section["name"]
    if name not in registry.names():
        problems.add(key, unknown(registry.kind, name, registry.names()))
        return None
    options = {option: section[option] for option in section if option != "name"}
    parameters = {**(more or {}), **registry.entry(name).parameters}
    return Named(name, read_section(options, parameters, key, problems))


def describe(hint: Any) -> str:
    """A type in words, as a message says what was expected."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(describe(part) for part in arguments)
    if origin is Literal:
        return " or ".join(f"'{choice}'" for choice in arguments)
    if origin is list:
        return f"a list of {describe(arguments[0]).removeprefix('a ')}s"
    if origin is dict:
        return "a mapping"
    if origin is tuple:
        return f"a list of {len(arguments)} values"
    return _WORDS.get(hint, "a value")


def _refusal(value: Any, hint: Any) -> str:
    choices = [
        choice
        for part in (hint, *get_args(hint))
        if get_origin(part) is Literal
        for choice in get_args(part)
    ]
    if isinstance(value, Mapping) and not all(map(_is_finite, value.values())):
        return f"got {spelled(value)}, expected finite numbers in it"
    match = nearest(value, map(str, choices)) if isinstance(value, str) else None
    hint_text = f"; did you mean '{match}'?" if match else ""
    return f"got {spelled(value)}, expected {describe(hint)}{hint_text}"


def _widened(value: Any, hint: Any) -> Any:
    """An integer as a float in a union that has no integers, where OmegaConf leaves it as it is."""
    parts = get_args(hint)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and float in parts and int not in parts else value


def _converted(schema: Any, name: str, value: Any) -> Any:
    OmegaConf.update(schema, name, value, merge=False)
    result = OmegaConf.to_container(schema)[name]  # type: ignore[call-overload, index]
    if not _faithful(value, result):
        raise ValueError(f"{value!r} became {result!r}")
    return result


def _is_finite(value: Any) -> bool:
    """Whether a value is no float that is infinite, or no number."""
    return not isinstance(value, float) or math.isfinite(value)


def _faithful(value: Any, result: Any) -> bool:
    """Whether a conversion keeps the meaning; OmegaConf reads 3 as true and true as 'True'."""
    if isinstance(value, Mapping):
        pairs = zip(value.values(), result.values(), strict=True)
        return all(_faithful(before, after) for before, after in pairs)
    if isinstance(value, list):
        return all(map(_faithful, value, result))
    if not _is_finite(result):
        return False
    return isinstance(value, bool) == isinstance(result, bool)
