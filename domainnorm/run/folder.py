"""The folder of a run: made once, read again on resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from domainnorm.errors import CheckpointError
from domainnorm.evaluation import write_json
from domainnorm.recipe import Recipe, load_recipe
from domainnorm.run.environment import describe_environment
from domainnorm.run.ranks import is_first, of_first
from domainnorm.storage import make_folders, replace_text

RECIPE = "recipe.yaml"
PURPOSE = "run.json"


def make_folder(recipe: Recipe, output: Path, purpose: str) -> Path:
    """Make ``output/<recipe>/<time>/`` with the resolved recipe and the environment.

    Args:
        recipe: What is carried out.
        output: Root of all run folders.
        purpose: ``run``, or the kind of matrix, for `read_folder`.

    Raises:
        CheckpointError: No folder can be made in ``output``.
    """
    stem = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    names = [stem, *(f"{stem}_{number}" for number in range(2, 100))]
    folder = next(p for name in names if not (p := output / recipe.name / name).exists())
    if is_first():
        make_folders(folder, new=True)
        write_json({"purpose": purpose, "recipe": recipe.name}, folder / PURPOSE)
        write_json(describe_environment(), folder / "environment.json")
        # Last, since a folder with a recipe is one that can be resumed.
        replace_text(folder / RECIPE, f"# {recipe.name}, resolved\n{recipe.to_yaml()}")
    return of_first(folder)


def read_folder(folder: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, str]:
    """The recipe of a run folder and the purpose it was made for.

    Args:
        folder: A run has made it.
        overrides: See `load_recipe`; the file stays as it is.

    Raises:
        CheckpointError: Not a run folder.
        RecipeError: Its recipe was edited into something wrong, or the overrides are.
    """
    if not (folder / RECIPE).is_file():
        raise not_a_run(folder, RECIPE)
    try:
        made = json.loads((folder / PURPOSE).read_text(encoding="utf-8"))
        purpose, name = str(made["purpose"]), str(made["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / PURPOSE}: cannot be read ({error})") from error
    return replace(load_recipe(str(folder / RECIPE), overrides), name=name), purpose


def not_a_run(folder: Path, missing: str) -> CheckpointError:
    """The error about a folder that lacks a file of every run."""
    return CheckpointError(
        f"{folder}: no {missing} in it; expected a folder that `domainnorm run` has made, "
        "outputs/<recipe>/<time>"
    )
