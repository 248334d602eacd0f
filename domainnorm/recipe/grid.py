"""Grid of a comparison: keys with several values each, and the recipe of every combination."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from domainnorm.errors import RecipeError
from domainnorm.recipe.load import load_recipe
from domainnorm.recipe.problems import Problems, spelled
from domainnorm.recipe.schema import DataConfig, Recipe
from domainnorm.recipe.sections import fixed_parameters
from domainnorm.recipe.tree import find_recipe, merged_tree, parse_overrides, resolved_tree
from domainnorm.registry import DATASETS

SEED = "seed"
_BARE = ("method", "norm", "task", "encoder")  # keys that a value is told without
_LISTS = ("compare", "configs")
_SIZES = ("data.image_size", "data.crop_size")  # a number, or height and width
_UNSAFE = re.compile(r"[^\w.+-]+", re.ASCII)
_LONGEST = 60  # characters of a cell's name in its folder
_SHOWN = 3  # cells that a problem names
T = TypeVar("T")


@dataclass(frozen=True)
class GridCell:
    """One combination of a grid.

    Args:
        values: Key → its value here, for the keys that have several; ``seed`` comes last.
        recipe: The recipe with these values; it has one seed.
    """

    values: dict[str, Any]
    recipe: Recipe

    @property
    def label(self) -> str:
        """What it is called, as ``tent dsbn lr=0.001 seed 0``."""
        return label_of(self.values) or self.recipe.name

    @property
    def slug(self) -> str:
        """Its label as a part of a folder's name."""
        return _UNSAFE.sub("_", self.label)[:_LONGEST].strip("_")


@dataclass(frozen=True)
class Grid:
    """Every combination of the values of some keys of a recipe.

    Args:
        name: Of the recipe.
        cells: In the order of the keys; the last one varies fastest.
    """

    name: str
    cells: list[GridCell]


def label_of(values: Mapping[str, Any]) -> str:
    """Values by key in a line."""
    words = []
    for key, value in values.items():
        if key == SEED:
            words.append(f"seed {value}")
        else:
            text = short(value)
            words.append(text if key in _BARE else f"{key.rpartition('.')[2]}={text}")
    return " ".join(words)


def short(value: Any) -> str:
    """A value of a grid in a word: of a named section its name and what else it says."""
    if isinstance(value, Mapping):
        if value.get("as"):
            return str(value["as"])
        rest = ",".join(f"{key}={short(of)}" for key, of in value.items() if key != "name")
        name = str(value.get("name", ""))
        return f"{name}({rest})" if name and rest else name or rest
    if isinstance(value, list):
        return "+".join(map(short, value))
    return value if isinstance(value, str) else spelled(value)


def read_grid(reference: str, overrides: Sequence[str] = ()) -> Grid:
    """The grid of a recipe and overrides, each cell with its checked recipe.

    A list at a key that takes a single value, ``norm=[dsbn,cin]``, is several values of it. At a
    key that takes a list, or has one in the recipe, a list is its value, and a list of lists is
    several. ``seed`` always has several, those of the recipe included, and varies fastest. Values
    of ``method`` are left out of the recipe's ``compare``.

    Args:
        reference: Path of a YAML file, or the name of a shipped recipe.
        overrides: ``key=value`` as `load_recipe` takes them, with several values for some keys.

    Raises:
        RecipeError: Everything that is wrong with any cell, or two cells that are the same.
    """
    problems = Problems()
    pairs = dict(parse_overrides(overrides, problems))
    held = [_word(key, value) for key, value in pairs.items() if not _is_several(key, value)]
    tree = resolved_tree(merged_tree(find_recipe(reference), held, Problems()), Problems())
    if isinstance(tree.get(SEED), list):
        pairs.setdefault(SEED, tree[SEED])
    stated = {key: _several(key, value, tree, problems) for key, value in pairs.items()}
    axes = {key: several for key, several in stated.items() if len(several) > 1}
    if SEED in axes:
        axes[SEED] = axes.pop(SEED)  # the last one varies fastest
    combinations = [dict(zip(axes, one, strict=True)) for one in product(*axes.values())]
    labels = [label_of(values) for values in combinations]
    for label in (label for label in labels if labels.count(label) > 1):
        problems.add(label, "is the label of several cells; give their values different 'as' names")
    if problems:
        raise RecipeError(problems.lines, reference)

    def load(values: dict[str, Any]) -> Recipe:
        # In the order of the words: `method.lr=…` changes the method that was named before it.
        given = {key: values[key] if key in values else one[0] for key, one in stated.items()}
        if "method" in given and isinstance(tree.get("compare"), list):
            cells = [_name(method) for method in stated["method"]]
            others = [one for one in tree["compare"] if _name(one) not in cells]
            given.setdefault("compare", others)
        return load_recipe(reference, [_word(key, value) for key, value in given.items()])

    recipes = each_checked(dict(zip(labels, combinations, strict=True)), load, reference)
    pairs_of = zip(combinations, recipes.values(), strict=True)
    cells = [GridCell(values, one) for values, one in pairs_of]
    _check_distinct(cells, reference)
    return Grid(cells[0].recipe.name, cells)


def each_checked(asked: Mapping[str, Any], make: Callable[[Any], T], where: str) -> dict[str, T]:
    """What is made of each cell, by label.

    Raises:
        RecipeError: All that was refused, each problem once with the cells that have it.
    """
    made: dict[str, T] = {}
    found: dict[str, list[str]] = defaultdict(list)
    for label, one in asked.items():
        try:
            made[label] = make(one)
        except RecipeError as error:
            for problem in error.problems:
                found[problem].append(label)
    if found:
        raise RecipeError(_by_cell(found, len(asked)), where)
    return made


def _by_cell(found: Mapping[str, Sequence[str]], total: int) -> Iterable[str]:
    for problem, labels in found.items():
        if len(labels) == total:
            yield f"{problem} (every cell)" if total > 1 else problem
            continue
        more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
        noun = "cell" if len(labels) == 1 else "cells"
        yield f"{problem} ({noun} {'; '.join(labels[:_SHOWN])}{more})"


def _name(method: Any) -> Any:
    section = method if isinstance(method, Mapping) else {"name": method}
    return section.get("as") or section.get("name")


def _word(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _is_several(key: str, value: Any) -> bool:
    """Whether an override may mean several values, whatever the recipe has."""
    flat = key == "configs" and isinstance(value, list) and not _nested(value)
    return isinstance(value, list) and not flat


def _nested(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, list) for item in value)


def _several(key: str, value: Any, tree: Mapping[str, Any], problems: Problems) -> list[Any]:
    """The values that an override gives to a key, often one."""
    if not isinstance(value, list):
        return [value]
    if key != SEED and _nested(value):
        return value
    if key == SEED or not _takes_a_list(key, tree):
        if not value:
            problems.expect(key, value, "at least one value")
        if key in _SIZES and len(value) == 2 and not any(isinstance(one, list) for one in value):
            one, other = value
            problems.add(
                key,
                f"one size or two? Write [[{one},{other}]] for height and width, "
                f"[[{one},{one}],[{other},{other}]] for two sizes",
            )
        return value
    if any(isinstance(item, list) for item in value):
        problems.expect(key, value, "a list, or a list of lists for several values")
    return [value]


def _takes_a_list(key: str, tree: Mapping[str, Any]) -> bool:
    """Whether a key holds a list in the recipe, or can hold nothing else."""
    held: Any = tree
    for name in key.split("."):
        held = held.get(name) if isinstance(held, Mapping) else None
    if isinstance(held, list) or key in _LISTS:
        return True
    section, _, name = key.partition(".")
    if section != "data":
        return False
    dataset = tree.get("data", {}).get("name")
    known = fixed_parameters(DataConfig)
    if dataset in DATASETS.names():
        known = {**known, **DATASETS.entry(dataset).parameters}
    return name in known and _is_list(known[name].annotation)


def _is_list(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return all(_is_list(part) or part is type(None) for part in get_args(hint))
    return get_origin(hint) is list


def _check_distinct(cells: Sequence[GridCell], where: str) -> None:
    seen: dict[str, str] = {}
    problems = []
    for cell in cells:
        same = seen.setdefault(cell.recipe.to_yaml(), cell.label)
        if same != cell.label:
            problems.append(f"cells '{same}' and '{cell.label}' are the same; leave one out")
    if problems:
        raise RecipeError(problems, where)
