"""The folder of a run: made once, read again on resume, shown on a page; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from domainnorm import evaluation
from domainnorm import recipe as recipes  # read where a recipe is, not for a page
from domainnorm.errors import CheckpointError
from domainnorm.report import caption, figure_place, run_page
from domainnorm.storage import DAMAGED, make_folders, replace_text

RECIPE, PURPOSE, ENVIRONMENT = "recipe.yaml", "run.json", "environment.json"
PAGE, TABLES, COST = "report.html", "results.md", "cost.json"
RESULTS = "results.json"  # of a stage
WEIGHTS, EPOCHS = "model.safetensors", "epochs"  # a folder in it for each epoch that stays
COMPARISON, STAGES = "compare", "stages"  # purposes: a grid of runs, and a run without a page


def make_folder(
    recipe: recipes.Recipe, output: Path, purpose: str, environment: Mapping[str, Any]
) -> Path:
    """Make ``output/<recipe>/<time>/`` with the resolved recipe and the environment.

    The purpose is ``run``, the kind of matrix, or ``compare``, which stands before the time;
    `read_folder` gives it back.

    Raises:
        CheckpointError: No folder can be made in ``output``.
    """
    stem = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if purpose == COMPARISON:
        stem = f"{purpose}-{stem}"
    names = [stem, *(f"{stem}_{number}" for number in range(2, 100))]
    folder = next(p for name in names if _is_made(p := output / recipe.name / name))
    evaluation.write_json(environment, folder / ENVIRONMENT)
    fill_folder(folder, recipe, purpose)
    return folder


def _is_made(folder: Path) -> bool:
    """Whether a folder was made now; not if it was there, as where runs begin in one second."""
    try:
        make_folders(folder, new=True)
    except FileExistsError:
        return False
    return True


def fill_folder(folder: Path, recipe: recipes.Recipe, purpose: str) -> None:
    """Write what a folder needs to be gone on with: its purpose and the resolved recipe."""
    evaluation.write_json({"purpose": purpose, "recipe": recipe.name}, folder / PURPOSE)
    # Last, since a folder with a recipe is one that can be resumed.
    replace_text(folder / RECIPE, f"# {recipe.name}, resolved\n{recipe.to_yaml()}")


def read_folder(folder: Path, overrides: Sequence[str] = ()) -> tuple[recipes.Recipe, str]:
    """The recipe of a run folder and the purpose it was made for.

    Raises:
        CheckpointError: Not a run folder, or that of a comparison.
        RecipeError: Its recipe was edited into something wrong, or the overrides are.
    """
    if not (folder / RECIPE).is_file():
        raise not_a_run(folder, RECIPE)
    try:
        made = json.loads((folder / PURPOSE).read_text(encoding="utf-8"))
        purpose, name = str(made["purpose"]), str(made["recipe"])
    except DAMAGED as error:
        raise CheckpointError(f"{folder / PURPOSE}: cannot be read ({error})") from error
    if purpose == COMPARISON:
        raise CheckpointError(
            f"{folder}: holds a comparison, expected a run; its runs are in {folder / 'cells'}, "
            f"and `domainnorm compare --resume {folder}` goes on with it"
        )
    return replace(recipes.load_recipe(str(folder / RECIPE), overrides), name=name), purpose


def write_results(folder: Path, tables: str) -> None:
    """Write ``results.md``: tables, and after them all figures of the run."""
    found = [path.relative_to(folder) for path in (folder / "figures").rglob("*.png")]
    figures = sorted((path.as_posix() for path in found), key=figure_place)
    shown = "".join(f"\n![{caption(path)}]({quote(path)})\n" for path in figures)
    replace_text(folder / TABLES, tables + shown)


def write_page(folder: Path, file: Path | None = None) -> Path:
    """Write ``report.html``: tables, figures, recipe and environment of a run in one file.

    It goes to ``file``, which may be a folder for it; to the folder of the run when None.

    Raises:
        CheckpointError: Not the folder of a run, or one without results.
    """
    if not (folder / PURPOSE).is_file():
        raise not_a_run(folder, PURPOSE)
    command = "run"
    try:
        made = json.loads((folder / PURPOSE).read_text(encoding="utf-8"))
        purpose = str(made["purpose"])
        commands = {"run": "run", STAGES: "run", COMPARISON: COMPARISON}
        command = commands.get(purpose, "matrix")
        page = run_page(folder, str(made["recipe"]))
    except DAMAGED as error:
        raise CheckpointError(
            f"{folder}: no results that can be read ({error}); of a run that was interrupted, "
            f"`domainnorm {command} --resume {folder}` makes some"
        ) from error
    place = folder if file is None else file
    if place.is_dir():
        place /= PAGE
    replace_text(place, page)
    return place


def not_a_run(folder: Path, missing: str) -> CheckpointError:
    """The error about a folder that lacks a file of every run."""
    return CheckpointError(
        f"{folder}: no {missing} in it; expected a folder that `domainnorm run` has made, "
        "outputs/<recipe>/<time>"
    )
