"""Imports point downwards only."""

import ast
from pathlib import Path

import pytest

import domainnorm

ROOT = Path(domainnorm.__file__).parent
LEVELS = {
    "errors": -1,  # below the others of its level, which raise them
    "registry": 0, "storage": 0, "ranges": 0.2, "condition": 0.4, "slot": 0.6,
    "norms": 1, "losses": 1, "perturbations": 1, "encoders": 1,
    "backbones": 2, "data": 2, "evaluation": 2,
    "tasks": 3,
    "methods": 4, "streams": 4,
    "recipe": 5,
    "report": 6,
    "run": 7,
    "serve": 7.5,
    "cli": 8,
}  # fmt: skip
# Names that have moved up are found where they were as well.
MOVED = {"run/__init__.pyi": ["serve"]}
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
    assert wrong == MOVED.get(file.relative_to(ROOT).as_posix(), [])


@pytest.mark.parametrize(("part", "other"), [("methods", "data"), ("data", "methods")])
def test_methods_and_data_never_meet(part, other):
    for file in (ROOT / part).rglob("*.py*"):
        if file.suffix in (".py", ".pyi"):
            assert other not in set(imported(ast.parse(file.read_text(encoding="utf-8")), file))
