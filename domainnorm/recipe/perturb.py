"""Checks the ``perturb:`` section: whose features are perturbed in training, and how."""

from __future__ import annotations

from typing import Any

from domainnorm.recipe.problems import Problems
from domainnorm.recipe.registries import PERTURBATIONS
from domainnorm.recipe.schema import Named
from domainnorm.recipe.sections import read_named
from domainnorm.registry import Parameter

_PLACE = {"where": Parameter("where", str | list[str] | None, None)}


def read_perturb(value: Any, problems: Problems) -> list[Named | None]:
    """The perturbations of a recipe, in the order they are written.

    Args:
        value: None, a name, ``{name, where, ...}`` or a list of these.
        problems: Takes what is wrong.
    """
    if not isinstance(value, list):
        return [] if value is None else [_read_one(value, "perturb", problems)]
    return [_read_one(item, f"perturb[{index}]", problems) for index, item in enumerate(value)]


def _read_one(value: Any, key: str, problems: Problems) -> Named | None:
    named = read_named(value, PERTURBATIONS, key, problems, more=_PLACE)
    if named is not None and named.options["where"] == []:
        problems.add(f"{key}.where", "got an empty list, expected stem, stage1, … or module paths")
    return named
