"""Pages of reference that are made of the code: each key of a recipe, each command.

``domainnorm docs`` and ``domainnorm list KIND NAME`` print them, and they are pages of the site.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from domainnorm import recipe, registry
from domainnorm.cli.parser import Parser
from domainnorm.cli.program import COMMANDS, find_command
from domainnorm.errors import DomainNormError, UnknownNameError
from domainnorm.norms.catalogue import CATALOGUE, NormSpec
from domainnorm.registry import REQUIRED, Entry, Parameter, Registry

# Kinds of names: their registry, and where a recipe writes one.
REGISTRIES: dict[str, tuple[Registry, str]] = {
    "methods": (registry.METHODS, "`method: NAME`, or `method: {name: NAME, key: value}`"),
    "statistics": (registry.STATISTICS, "`norm: {statistics: NAME, modulation: …, key: value}`"),
    "modulations": (registry.MODULATIONS, "`norm: {statistics: …, modulation: NAME, key: value}`"),
    "perturbations": (registry.PERTURBATIONS, "`perturb: {name: NAME, where: stem, key: value}`"),
    "encoders": (registry.ENCODERS, "`encoder: NAME`, or `encoder: {name: NAME, key: value}`"),
    "datasets": (registry.DATASETS, "`data: {name: NAME, key: value}`, beside the keys of `data`"),
    "tasks": (registry.TASKS, "`task: NAME`, or `task: {name: NAME, key: value}`"),
    "transforms": (registry.TRANSFORMS, "a step of `augment`, beside those of albumentations"),
    "validators": (registry.VALIDATORS, "`evaluation: {selection: NAME}`"),
    "loggers": (registry.LOGGERS, "`trainer: {logger: NAME}`"),
}
_WORDS = {int: "whole number", float: "number", bool: "true, false", str: "text", list: "list"}
_ARG = re.compile(r"^    (\w+): +(.*(?:\n {5,}.*)*)", re.MULTILINE)
_HEADING = re.compile(r"^(?:Args|Shape|Returns|Raises|Attributes|Reference):", re.MULTILINE)


def made_pages() -> dict[str, tuple[str, Callable[[], str]]]:
    """Names of the pages, such as ``reference/methods``, → their title, and what makes the text."""
    kinds = {kind: f"Reference: {kind}" for kind in REGISTRIES}
    return {
        "reference/recipe": ("Reference: keys of a recipe", _recipe_page),
        "reference/norms": ("Reference: norms", _norms_page),
        **{f"reference/{kind}": (title, _kind_page(kind)) for kind, title in kinds.items()},
        "reference/commands": ("Reference: commands", _commands_page),
    }


def entries_of(kind: str) -> dict[str, Entry]:
    """What is registered of a kind, by the names that recipes use."""
    known, _ = REGISTRIES[kind]
    entries = [known.entry(name) for name in known.names()]
    # A step is named like those of albumentations, by its class.
    return {one.attribute if kind == "transforms" else one.name: one for one in entries}


def describe(kind: str, name: str) -> str:
    """A section on one name of a kind: what it does, its keys, its source.

    Raises:
        DomainNormError: No such name; or recipes and parts, which are read with `show`.
    """
    if kind == "norms":
        if name not in CATALOGUE:
            raise UnknownNameError("norm", name, CATALOGUE)
        return _describe_norm(CATALOGUE[name])
    if kind not in REGISTRIES:
        raise DomainNormError(f"{kind} have no keys of their own; see: domainnorm show {name}")
    entries = entries_of(kind)
    if name not in entries:
        raise UnknownNameError(kind.removesuffix("s"), name, entries)
    return _describe_entry(name, entries[name])


def _describe_norm(norm: NormSpec) -> str:
    halves = (
        registry.STATISTICS.entry(norm.statistics),
        registry.MODULATIONS.entry(norm.modulation),
    )
    keys = {key: one for half in halves for key, one in half.parameters.items()}
    told = {key: text for half in halves for key, text in _told(half).items()}
    own = "".join(f" Its `{key}` is `{value}`." for key, value in norm.options.items())
    parts = [
        f"## {norm.name}",
        f"{norm.statistics} × {norm.modulation}: {norm.use}.{own}",
        *([_table(keys, told)] if keys else []),
        f"Source: {norm.paper}",
    ]
    return "\n\n".join(parts)


def _describe_entry(name: str, entry: Entry) -> str:
    doc = entry.docstrings[0]
    told = _HEADING.split(doc)[0].strip()
    parts = [f"## {name}", _markdown(told)]
    if entry.parameters:
        parts.append(_table(entry.parameters, _told(entry)))
    if source := _block(doc, "Reference"):
        parts.append(f"Source: {_markdown(inspect.cleandoc(source))}")
    if entry.kind == "method" and (page := f"methods/{name}") in recipe.list_pages():
        parts.append(f"More: [docs/{page}.md](../{page}.md)")
    return "\n\n".join(parts)


def _told(entry: Entry) -> dict[str, str]:
    """What each key of an entry does, as its docstring says or one that it inherits from."""
    found: dict[str, str] = {}
    for doc in reversed(entry.docstrings):
        found.update(_meanings(doc))
    return found


def _meanings(doc: str) -> dict[str, str]:
    return {name: " ".join(text.split()) for name, text in _ARG.findall(_block(doc, "Args"))}


def _block(doc: str, head: str) -> str:
    """What stands indented under a head of a docstring; nothing where it has none."""
    found = re.search(rf"^{head}:\n((?:[ \t]+.*\n|\n)*)", f"{doc}\n", re.MULTILINE)
    return found[1] if found else ""


def _recipe_page() -> str:
    told = _meanings(inspect.getdoc(recipe.Recipe) or "")
    told["seed"] = told["seeds"]
    told["configs"] = "Parts of recipes, merged from left to right; keys of the recipe itself win."
    hints = get_type_hints(recipe.Recipe)
    words = {key: _values(hints[key]) for key in ("condition", "unseen", "far")}
    rows = [f"| `{key}` | {_cell(told[key])} | {words.get(key, '')} |" for key in recipe.KEYS]
    head = (
        "# Keys of a recipe",
        "A recipe is one YAML file. `domainnorm show RECIPE` prints it with every key spelled out; "
        "`domainnorm check RECIPE` names each key that is wrong. On the command line a key is "
        "written with dots: `trainer.max_epochs=5`.",
        "\n".join(("| key | | values |", "|---|---|---|", *rows)),
    )
    schemas = {
        "backbone": recipe.BackboneConfig,
        "data": recipe.DataConfig,
        "trainer": recipe.TrainerConfig,
        "evaluation": recipe.EvaluationConfig,
    }
    sections = (
        f"## {name}\n\n"
        + _table(recipe.fixed_parameters(schema), _meanings(inspect.getdoc(schema) or ""))
        for name, schema in schemas.items()
    )
    return "\n\n".join((*head, *sections)) + "\n"


def _norms_page() -> str:
    rows = (
        f"| [`{name}`](#{name}) | {one.statistics} × {one.modulation} | {_cell(one.use)} |"
        for name, one in CATALOGUE.items()
    )
    head = (
        "# Norms",
        "In a recipe: `norm: NAME`, `norm: {name: NAME, key: value}`, "
        "`norm: {statistics: …, modulation: …}`, or rules by place, "
        "`norm: {early: cin, late: dsbn}`. A norm takes the keys of its "
        "[statistics](statistics.md) and of its [modulation](modulations.md).",
        "\n".join(("| name | statistics × modulation | when |", "|---|---|---|", *rows)),
    )
    return "\n\n".join((*head, *map(_describe_norm, CATALOGUE.values()))) + "\n"


def _kind_page(kind: str) -> Callable[[], str]:
    def page() -> str:
        head = f"# {kind.capitalize()}\n\nIn a recipe: {REGISTRIES[kind][1]}."
        entries = (_describe_entry(name, entry) for name, entry in entries_of(kind).items())
        return "\n\n".join((head, *entries)) + "\n"

    return page


def _commands_page() -> str:
    def sections() -> Iterator[str]:
        for name in COMMANDS:
            command = find_command(name)
            parser = Parser(name, command.summary)
            command.configure(parser)
            for one in (parser, *parser.actions().values()):
                one.formatter_class = _Fixed
                level = "##" if one is parser else "###"
                title = one.prog.removeprefix("domainnorm ")
                yield f"{level} {title}\n\n```\n{one.format_help().rstrip()}\n```"

    head = (
        "# Commands\n\nExit codes: 0 done, 1 failure while running, 2 bad recipe or command line."
    )
    return "\n\n".join((head, *sections())) + "\n"


class _Fixed(argparse.RawDescriptionHelpFormatter):
    """Help of one width, whatever the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def _table(parameters: Mapping[str, Parameter], told: Mapping[str, str]) -> str:
    rows = (
        f"| `{name}` | {_cell(told.get(name, ''))} | {_values(one.annotation)} | {_default(one)} |"
        for name, one in parameters.items()
    )
    return "\n".join(("| key | | values | default |", "|---|---|---|---|", *rows))


def _values(hint: Any) -> str:
    """The values that a type allows, in few words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return ", ".join(map(_values, arguments))
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (list, tuple) and arguments:
        return f"list of {_values(arguments[0])}s".removesuffix("anys")
    if origin is dict or hint is dict:
        return "mapping"
    return "null" if hint in (None, NoneType) else _WORDS.get(hint, "any")


def _default(parameter: Parameter) -> str:
    value = parameter.default
    if value is REQUIRED:
        return "required"
    words = {None: "null", True: "true", False: "false"}
    spelled = words.get(value) if value is None or isinstance(value, bool) else None
    return f"`{spelled or (value if value != '' else repr(value))}`"


def _markdown(text: str) -> str:
    """Docstrings mark code by two backticks."""
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return re.sub(r"\bNone\b", "null", _markdown(text)).replace("|", "\\|")
