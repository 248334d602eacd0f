"""Imports point downwards only, and rooms have names and sizes that a reader can keep in mind."""

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import domainnorm
from domainnorm import registry

ROOT = Path(domainnorm.__file__).parent
LEVELS = {
    "errors": -1,  # below the others of its level, which raise them
    "registry": 0, "storage": 0, "terminal": 0, "ranges": 0.2, "condition": 0.4, "slot": 0.6,
    "norms": 1, "losses": 1, "perturbations": 1, "encoders": 1, "loggers": 1,
    "backbones": 2, "data": 2, "evaluation": 2,
    "tasks": 3,
    "streams": 3,
    "methods": 4,
    "recipe": 5,
    "report": 6,
    "run": 7,
    "serve": 7.5,
    "cli": 8,
}  # fmt: skip
FILES = sorted(ROOT.rglob("*.py")) + sorted(ROOT.rglob("*.pyi"))


def part_of(file):
    return file.relative_to(ROOT).with_suffix("").parts[0]


def imported(tree, file):
    """Parts of the package that a module names in its imports, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            head, *rest = node.module.split(".")
            if head == "domainnorm":
                yield from rest[:1] or [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = file.parents[node.level - 1].relative_to(ROOT).parts
            yield from base[:1] or [(node.module or alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                head, *rest = alias.name.split(".")
                if head == "domainnorm" and rest:
                    yield rest[0]


def test_every_part_of_the_package_has_a_level():
    found = {part_of(file) for file in FILES} - {"__init__", "__main__"}
    assert found <= LEVELS.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_module_imports_only_from_lower_levels(file):
    own = part_of(file)
    if own in ("__init__", "__main__"):
        own = "top"
    level = LEVELS.get(own, 9)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    wrong = [name for name in imported(tree, file) if name != own and LEVELS.get(name, 9) >= level]
    assert not wrong


@pytest.mark.parametrize(("part", "other"), [("methods", "data"), ("data", "methods")])
def test_methods_and_data_never_meet(part, other):
    for file in (ROOT / part).rglob("*.py*"):
        if file.suffix in (".py", ".pyi"):
            assert other not in set(imported(ast.parse(file.read_text(encoding="utf-8")), file))


MOST_FILES = 15
MOST_LINES = 500
SHARED_NAMES = {"__init__", "__main__", "base", "create"}
MODULES = {
    ".".join(["domainnorm", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): file
    for file in FILES
    if file.suffix == ".py"
}
KINDS = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
PLUG_INS = {kind.entry(name).module for kind in KINDS for name in kind.names()}
FULL: set[str] = set()


def loaded_at_once(module):
    """Modules of the package that a module's own import loads, names of packages followed."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in MODULES:
            for alias in node.names:
                yield home_of(node.module, alias.name)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def home_of(module, name):
    """The module that ``from module import name`` ends up in; packages say so in their stub."""
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    stub = MODULES[module].with_suffix(".pyi")
    if stub.is_file():
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
                return home_of(f"{module}.{node.module}" if node.module else module, name)
    return module


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {module: set(loaded_at_once(module)) - {module} for module in MODULES}
    TopologicalSorter(graph).prepare()  # an error names the circle


def test_modules_have_names_of_their_own():
    """Those of plug-ins are the names that recipes use, each in the folder of its kind."""
    plug_ins = {MODULES[module].stem for module in PLUG_INS}
    rooms = [file.stem for module, file in MODULES.items() if module not in PLUG_INS]
    names = Counter([*rooms, *plug_ins])
    assert {name for name, count in names.items() if count > 1} <= SHARED_NAMES


def test_file_is_at_most_as_long_as_a_concept():
    lengths = {
        module: file.read_text(encoding="utf-8").count("\n") for module, file in MODULES.items()
    }
    assert {module: lines for module, lines in lengths.items() if lines > MOST_LINES} == {}


def test_folder_is_walked_through_at_a_glance():
    rooms = Counter(file.parent for module, file in MODULES.items() if module not in PLUG_INS)
    assert {str(f.relative_to(ROOT)) for f, n in rooms.items() if n > MOST_FILES} <= FULL
