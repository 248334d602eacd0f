"""Registry of the names of a recipe: read from the files of a folder, without importing them.

The object marked ``@register`` is an entry called like its file; further ones of a file say their
names, ``@register("foggy_cityscapes")``. Keyword-only parameters of that object are its recipe
keys, so its signature is the schema. Reading the source instead of importing it keeps
``domainnorm check`` and ``list`` free of torch. Third parties add entries through the entry-point
group ``domainnorm``, named ``<kind>.<name>`` (``method.mine = "my_package.mine:Mine"``); what they
inherit from other packages, ours or not, is read in the source of these.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, EntryPoints, entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from domainnorm.errors import DomainNormError, UnknownNameError, unknown

GROUP = "domainnorm"  # of entry points; the name of this package, too
Registered = TypeVar("Registered")
_TYPES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (int, float, str, bool, list, dict, tuple)},
    "Any": Any,
}


class _Required:
    """Default of a parameter that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Any = _Required()
_HIDDEN = object()
Definition = ast.ClassDef | ast.FunctionDef


# A mark, other decorators, and what is marked. Only a file of an entry that is asked for is parsed.
_MARK = re.compile(r"^@register\b(.*)\n(?:(?:@|[ \t)]).*\n)*(?:class|def) (\w+)", re.MULTILINE)
_CLASS = re.compile(r'^class (\w+)\b.*:\n    """(.*[^\\"\n])(?:"""|\n)', re.MULTILINE)
_STATED = re.compile(r"""\((["'])([\w.-]+)\1\)""")


@overload
def register(target: str) -> Callable[[Registered], Registered]: ...
@overload
def register(target: Registered) -> Registered: ...
def register(target: Any) -> Any:
    """Mark what a file contributes to its registry, by the file's name or one in quotes."""
    return (lambda marked: marked) if isinstance(target, str) else target


@dataclass(frozen=True)
class Parameter:
    """A keyword-only parameter: a recipe key with its type and default."""

    name: str
    annotation: Any
    default: Any = REQUIRED


@dataclass(frozen=True)
class Entry:
    """One registered object, known from its source text.

    Args:
        kind: What the registry holds (``method``, ``dataset``, …).
        name: The name a recipe uses.
        module: Dotted path of the defining module; imported only by `load`.
        attribute: Name of the object inside the module.
        distribution: What has been installed with it; None for our own.
    """

    kind: str
    name: str
    module: str
    attribute: str
    distribution: Distribution | None = field(default=None, compare=False, repr=False)

    @property
    def origin(self) -> str:
        """Where it comes from, for messages."""
        place, package = f"{self.module}:{self.attribute}", self.distribution
        if package is None:
            return place
        return f"{place} (of {package.metadata['Name']} {package.version})"

    def load(self) -> Any:
        """Import the module and return the object.

        Raises:
            DomainNormError: An entry of another package that cannot be imported.
        """
        try:
            return getattr(importlib.import_module(self.module), self.attribute)
        except (ImportError, AttributeError) as error:
            if self.distribution is None:
                raise
            raise DomainNormError(
                f"{self.kind} '{self.name}': {self.origin} cannot be imported ({error})"
            ) from error

    @cached_property
    def _found(self) -> tuple[_Source, Definition]:
        """Its definition, and the module that is in: names may be imported from others."""
        try:
            return _Source.read(self.module).definition(self.attribute)
        except DomainNormError as error:
            if self.distribution is None:
                raise
            raise DomainNormError(f"{self.kind} '{self.name}' of {self.origin}: {error}") from None

    @property
    def summary(self) -> str:
        """First line of the object's docstring; the usual head of a class needs no parsing."""
        for attribute, line in _CLASS.findall(_text(self.module)):
            if attribute == self.attribute:
                return str(line)
        text = ast.get_docstring(self._found[1]) or ""
        return text.partition("\n")[0]

    @property
    def docstrings(self) -> list[str]:
        """Docstrings of the object and of what it inherits from, as far as that can be read."""
        found = [self._found[1]]
        for name in self.lineage[1:]:
            with suppress(DomainNormError, ValueError):
                found.append(_find(name)[1])
        return [ast.get_docstring(node) or "" for node in found]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Recipe keys: keyword-only parameters, those reached through ``**kwargs`` included."""
        source, node = self._found
        return source.parameters(node)

    @property
    def arguments(self) -> list[str]:
        """Names of what a registered function is given by position."""
        node = self._found[1]
        return [one.arg for one in node.args.args] if isinstance(node, ast.FunctionDef) else []

    @property
    def constants(self) -> dict[str, Any]:
        """Literal class attributes of the object, its own and its bases'."""
        source, node = self._found
        found: dict[str, Any] = {}
        for outline in reversed(_outline(source.module, node.name).__mro__[:-1]):
            found.update(vars(outline)["own"])
        return {key: value for key, value in found.items() if value is not _HIDDEN}

    @property
    def lineage(self) -> list[str]:
        """Dotted names of a class and its bases, the nearest first, as far as they can be read."""
        source, node = self._found
        return list(source.lineage(node))


class Registry:
    """The entries of one package folder and of the entry-point group ``domainnorm``.

    Args:
        kind: Word for an entry in messages and entry-point names.
        package: Dotted name of the package whose files are the entries; none where all are of
            third parties.
    """

    def __init__(self, kind: str, package: str = "") -> None:
        self.kind = kind
        self.package = package

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for entry in (*self._own(), *self._foreign()):
            other = entries.setdefault(entry.name, entry)
            if other != entry:
                way = "rename one" if entry.distribution is None else "rename or uninstall one"
                raise DomainNormError(
                    f"{self.kind} '{entry.name}' is registered twice, by {other.origin} and "
                    f"{entry.origin}; {way}"
                )
        return dict(sorted(entries.items()))

    def _own(self) -> Iterator[Entry]:
        if not self.package:
            return
        for file in sorted(_source_file(self.package).parent.glob("*.py")):
            module = f"{self.package}.{file.stem}"
            for mark, attribute in _MARK.findall(_text(module)):
                stated = _STATED.match(mark)
                if mark.startswith("(") and stated is None:
                    raise DomainNormError(
                        f"{module}:{attribute}: @register takes a name in quotes, got {mark}"
                    )
                yield Entry(self.kind, stated[2] if stated else file.stem, module, attribute)

    def _foreign(self) -> Iterator[Entry]:
        for point in _entry_points():
            kind, _, name = point.name.partition(".")
            entry = Entry(kind, name, point.module, point.attr, point.dist)
            if kind not in KINDS or not name:
                raise DomainNormError(
                    f"entry point '{point.name}' of {entry.origin}: expected <kind>.<name>, such "
                    f"as 'method.mine'; {unknown('kind', kind, KINDS)}"
                )
            if kind == self.kind:
                yield entry

    def names(self) -> list[str]:
        """All names, sorted."""
        return list(self._entries)

    def entry(self, name: str) -> Entry:
        """The entry called ``name``.

        Raises:
            UnknownNameError: No such name; the message gives the nearest one and the list.
        """
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def name_of(self, target: type) -> str:
        """The name of a registered class; of any other class, that of its module."""
        for entry in self._entries.values():
            if entry.attribute == target.__name__ and entry.load() is target:
                return entry.name
        return target.__module__.rpartition(".")[2]

    def kin(self, name: str) -> set[str]:
        """Names of the entry called ``name`` and of those that its class inherits from."""
        bases = set(self.entry(name).lineage)
        return {
            other
            for other, one in self._entries.items()
            if f"{one.module}.{one.attribute}" in bases
        }

    def load(self, name: str) -> Any:
        """Import and return the object called ``name``."""
        return self.entry(name).load()

    def create(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        """Call the object called ``name``; ``options`` are its recipe keys.

        Raises:
            UnknownNameError: No such name; the message gives the nearest one and the list.
            DomainNormError: An option that it does not have.
        """
        entry = self.entry(name)
        for option in options:
            if option not in entry.parameters:
                problem = unknown("option", option, entry.parameters)
                raise DomainNormError(f"{self.kind} '{name}': {problem}")
        return entry.load()(*arguments, **options)


@cache  # every registry asks
def _entry_points() -> EntryPoints:
    return entry_points(group=GROUP)


@dataclass(frozen=True)
class _Source:
    """The syntax tree of one module, and what can be read off it."""

    module: str
    tree: ast.Module

    @staticmethod
    @cache  # a module is asked for its entry, its summary and its bases
    def read(module: str) -> _Source:
        try:
            return _Source(module, ast.parse(_text(module)))
        except SyntaxError as error:
            raise DomainNormError(
                f"{module}: not Python, line {error.lineno}: {error.msg}"
            ) from error

    def definition(self, name: str) -> tuple[_Source, Definition]:
        """A class or function, and the module that defines it where this one imports it.

        Raises:
            DomainNormError: No such class or function.
        """
        for node in self.tree.body:
            if isinstance(node, Definition) and node.name == name:
                return self, node
        if name in self.imports:
            return _find(self.imports[name])
        raise DomainNormError(f"{self.module}: no class or function called '{name}'")

    @cached_property
    def imports(self) -> dict[str, str]:
        """Name in this module, or its stub -> dotted name of what is imported under it."""
        file, found = _source_file(self.module), {}
        package = self.module if file.stem == "__init__" else self.module.rpartition(".")[0]
        stub = file.with_suffix(".pyi")  # says what packages that import late have
        stated = ast.parse(stub.read_text(encoding="utf-8")).body if stub.is_file() else []
        for statement in (*stated, *self.tree.body):
            if isinstance(statement, ast.ImportFrom):
                module = "." * statement.level + (statement.module or "")
                module = importlib.util.resolve_name(module, package)
                for alias in statement.names:
                    found[alias.asname or alias.name] = f"{module}.{alias.name}"
            elif isinstance(statement, ast.Import):
                for alias in statement.names:
                    head = alias.name.partition(".")[0]
                    found[alias.asname or head] = alias.name if alias.asname else head
        return found

    def parameters(self, node: Definition) -> dict[str, Parameter]:
        own = _initializer(node)
        found: dict[str, Parameter] = {}
        if own is None or own.args.kwarg:
            for source, base in self.bases(node):
                found.update(source.parameters(base))
        if own is not None:
            for argument, default in zip(own.args.kwonlyargs, own.args.kw_defaults, strict=True):
                found[argument.arg] = self._parameter(argument, default)
        return found

    def lineage(self, node: Definition) -> Iterator[str]:
        yield f"{self.module}.{node.name}"
        for name, found in self._stated_bases(node):
            yield from [name] if found is None else found[0].lineage(found[1])

    def bases(self, node: Definition) -> Iterator[tuple[_Source, Definition]]:
        """Base classes that can be read; of our own classes those that are ours."""
        return (found for _, found in self._stated_bases(node) if found is not None)

    def _stated_bases(
        self, node: Definition
    ) -> Iterator[tuple[str, tuple[_Source, Definition] | None]]:
        """Dotted name of each base class, and what is found under it."""
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            spelled = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
            # Those below it do not exist yet: a class may be called like the one it inherits from.
            above = [one for one in self.tree.body if one.lineno < node.lineno]
            here = [one for one in above if isinstance(one, ast.ClassDef) and one.name == spelled]
            if here:
                yield f"{self.module}.{spelled}", (self, here[-1])
                continue
            head, dot, rest = spelled.partition(".")
            name = self.imports.get(head, head) + dot + rest
            yield name, self._imported(name)

    def _imported(self, name: str) -> tuple[_Source, Definition] | None:
        """What an imported base is; None for what has no keys to offer, and of unknown make."""
        own, package = self.module.partition(".")[0], name.partition(".")[0]
        if "." not in name or package in sys.stdlib_module_names or own == GROUP != package:
            return None
        try:
            return _find(name)
        except DomainNormError:
            if package in (GROUP, own):
                raise
            return None  # libraries may be compiled, or name their classes late

    def _parameter(self, argument: ast.arg, default: ast.expr | None) -> Parameter:
        try:
            hint = _type(argument.annotation)
            value = REQUIRED if default is None else ast.literal_eval(default)
        except (KeyError, TypeError, ValueError) as error:
            raise DomainNormError(
                f"{self.module}: parameter '{argument.arg}' cannot be a recipe key ({error}); use "
                "builtin types, Literal and literal defaults, or hide it by an __init__ without **"
            ) from error
        return Parameter(argument.arg, hint, value)


@cache  # a base that two others share must be one class
def _outline(module: str, name: str) -> type:
    """A class of literal constants on outlines of its bases; Python puts them in order."""
    source, node = _Source.read(module).definition(name)
    # What is not a literal no recipe rule reads; it hides what a base says under that name.
    own: dict[str, Any] = {item.name: _HIDDEN for item in node.body if isinstance(item, Definition)}
    for item in node.body:
        for target, value in _assignments(item):
            own[target] = _HIDDEN
            with suppress(ValueError):
                own[target] = ast.literal_eval(value)
    bases = tuple(_outline(one.module, base.name) for one, base in source.bases(node))
    return type(name, bases, {"own": own})


def _assignments(item: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Name and value of ``a = 1`` and ``a: int = 1``."""
    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value:
        yield item.target.id, item.value
    elif isinstance(item, ast.Assign):
        for target in item.targets:
            if isinstance(target, ast.Name):
                yield target.id, item.value


def _initializer(node: Definition) -> ast.FunctionDef | None:
    if isinstance(node, ast.FunctionDef):
        return node
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return item
    return None


def _type(node: ast.expr | None) -> Any:
    """The type an annotation spells, read as data: builtins, Any, Literal, unions, generics."""
    match node:
        case None | ast.Constant(value=None):
            return Any if node is None else None
        case ast.Name(id=name):
            return _TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type(left) | _type(right)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return Literal.__getitem__(ast.literal_eval(choices))
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=elements)):
            return _TYPES[name][tuple(map(_type, elements))]
        case ast.Subscript(value=ast.Name(id=name), slice=element):
            return _TYPES[name][_type(element)]
    raise TypeError(f"annotation '{ast.unparse(node)}'")


@cache
def _text(module: str) -> str:
    return _source_file(module).read_text(encoding="utf-8")


def _source_file(module: str) -> Path:
    spec = _spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise DomainNormError(f"{module}: no such module, or none in Python")
    return Path(spec.origin)


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is; unlike `importlib.util.find_spec`, imports no package that it is in."""
    package = module.rpartition(".")[0]
    if not package:
        return importlib.util.find_spec(module)
    above = _spec(package)
    path = above.submodule_search_locations if above else None
    return None if path is None else PathFinder.find_spec(module, path)


def _find(dotted: str) -> tuple[_Source, Definition]:
    """The class or function that an import of this name gives, and the module that defines it."""
    module, _, name = dotted.rpartition(".")
    return _Source.read(module).definition(name)


ENCODERS = Registry("encoder", "domainnorm.encoders")
METHODS = Registry("method", "domainnorm.methods")
TASKS = Registry("task", "domainnorm.tasks")
DATASETS = Registry("dataset", "domainnorm.data.datasets")
TRANSFORMS = Registry("transform", "domainnorm.data.augmentation")
STATISTICS = Registry("statistics", "domainnorm.norms.statistics")
MODULATIONS = Registry("modulation", "domainnorm.norms.modulations")
PERTURBATIONS = Registry("perturbation", "domainnorm.perturbations")
VALIDATORS = Registry("validator", "domainnorm.evaluation")
LOGGERS = Registry("logger", "domainnorm.loggers")
CALLBACKS = Registry("callback")
SAMPLERS = Registry("sampler")
KINDS = [one.kind for one in list(globals().values()) if isinstance(one, Registry)]
