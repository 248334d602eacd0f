"""Overrides of a recipe: ``key=value`` words, and how they change the tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from domainnorm.recipe.problems import Problems, spelled

OVERRIDE = re.compile(r"([A-Za-z_][\w-]*(?:\.[\w-]+)*)=(.*)", re.DOTALL)
NAMED_SECTIONS = ("task", "method", "norm", "perturb", "encoder")


def apply_override(tree: dict[str, Any], key: str, value: Any, problems: Problems) -> None:
    """Set one dotted key of ``tree``; a section given as a name becomes a mapping first."""
    *parents, last = key.split(".")
    section = tree
    for depth, name in enumerate(parents):
        inner = section.get(name)
        if depth == 0 and name in NAMED_SECTIONS and isinstance(inner, str):
            inner = {"name": inner}
        elif inner is None:
            inner = {}
        elif not isinstance(inner, Mapping):
            where = ".".join(parents[: depth + 1])
            text = f"cannot set '{key}' inside {spelled(inner)}; give {where}=… as a whole"
            problems.add(where, text)
            return
        section[name] = dict(inner)
        section = section[name]
    section[last] = value
