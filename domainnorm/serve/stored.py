"""The model that a finished stage has left, without its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from domainnorm.backbones import DomainModel, ModelHeader, load_model, read_header
from domainnorm.errors import CheckpointError
from domainnorm.recipe import Recipe
from domainnorm.registry import TASKS
from domainnorm.run.encoding import attach_encoder
from domainnorm.run.run_folder import RECIPE, read_folder
from domainnorm.run.stage import WEIGHTS
from domainnorm.tasks import Task

_SHOWN = 6


@dataclass(frozen=True)
class StoredModel:
    """What `load_stored` returns.

    Args:
        model: In evaluation mode.
        recipe: The recipe of its run.
        class_names: Classes, in output order.
        place: Folder of the stage.
    """

    model: DomainModel
    recipe: Recipe
    class_names: tuple[str, ...]
    place: Path


def load_stored(folder: Path) -> StoredModel:
    """The model of a stage; neither data nor pretrained weights are needed.

    Args:
        folder: Folder of a stage, ``RUN/stages/<transfer>/seed<n>/<method>``, or of a run in which
            one finished stage has the method of the recipe.

    Raises:
        CheckpointError: No such folder, nothing finished in it, several stages to choose from, or
            weights that are truncated or do not fit the recipe.
    """
    place = folder if (folder / WEIGHTS).is_file() else _only_stage(folder)
    recipe, _ = read_folder(place.resolve().parents[3])
    model, header = stored_model(recipe, place)
    return StoredModel(model, recipe, header.class_names, place)


def stored_model(recipe: Recipe, place: Path) -> tuple[DomainModel, ModelHeader]:
    """The model of a stage in evaluation mode, and what its weights say about it.

    Args:
        recipe: That of the run.
        place: Folder of the stage.

    Raises:
        CheckpointError: Weights that are truncated or do not fit the recipe.
    """
    header = read_header(place / WEIGHTS)
    task: Task = TASKS.load(recipe.task.name)(header.class_names, **recipe.task.options)
    model: DomainModel = task.create_model(
        recipe.backbone.name,
        recipe.norm,
        header.domain_names,
        **recipe.backbone.options,
    )
    attach_encoder(recipe, model)
    load_model(model, place / WEIGHTS)
    return model.eval(), header


def _only_stage(folder: Path) -> Path:
    if not (folder / RECIPE).is_file():
        raise CheckpointError(
            f"{folder}: neither a run folder (no {RECIPE}) nor that of a stage (no {WEIGHTS})"
        )
    recipe, _ = read_folder(folder)
    finished = sorted(file.parent for file in folder.glob(f"stages/*/*/*/{WEIGHTS}"))
    own = [place for place in finished if place.name == recipe.method.name]
    if len(own) == 1:
        return own[0]
    if not finished:
        raise CheckpointError(f"{folder}: no finished stage; go on with `run --resume {folder}`")
    listing = "".join(f"\n  {place}" for place in (own or finished)[:_SHOWN])
    raise CheckpointError(f"{folder}: {len(own or finished)} finished stages, name one:{listing}")
