"""The model that a finished stage has left, without its data, and how it takes image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainnorm.backbones import DomainModel, ModelHeader, load_model, read_header
from domainnorm.data import Preprocessing
from domainnorm.data.masks import VOID
from domainnorm.errors import CheckpointError, DataError, counted, unknown
from domainnorm.methods import online_methods
from domainnorm.recipe import Recipe
from domainnorm.registry import TASKS
from domainnorm.run.encoding import attach_encoder
from domainnorm.run.parts import preprocessing_of
from domainnorm.run.run_folder import RECIPE, read_folder
from domainnorm.run.training import EPOCHS, WEIGHTS
from domainnorm.tasks import Task

_SHOWN = 6
# What there is for tasks whose outputs are images.
_WAYS = {
    "translation": "`domainnorm translate RUN IMAGES --to DOMAIN` writes them",
    "generation": "`domainnorm generate RUN` writes them",
    "restoration": "in Python, domainnorm.serve.load_stored has the model (docs/restoration.md)",
}


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

    @property
    def online(self) -> str:
        """The method of its stage, if it adapted while it predicted; else empty."""
        asked = (self.recipe.method, *self.recipe.compare)
        names = [one.name for one in asked if one.label == self.place.name]
        return next((name for name in names if name in online_methods()), "")

    def check_says(self) -> None:
        """Raise a CheckpointError where outputs are images, of which there is nothing to say."""
        name = self.recipe.task.name
        if way := _WAYS.get(name):
            raise CheckpointError(f"{self.place}: of task '{name}', which gives images; {way}")


def load_stored(folder: Path) -> StoredModel:
    """The model of a stage; neither data nor pretrained weights are needed.

    Args:
        folder: Folder of a stage, ``RUN/stages/<transfer>/seed<n>/<method>``, of an epoch that was
            kept, ``epochs/<number>`` in it, or of a run in which one finished stage has the method
            of the recipe.

    Raises:
        CheckpointError: No such folder, nothing finished in it, several stages to choose from, or
            weights that are truncated or do not fit the recipe.
    """
    place = folder
    if not (folder / WEIGHTS).is_file():
        if not (folder / RECIPE).is_file():
            raise CheckpointError(
                f"{folder}: neither a run folder (no {RECIPE}) nor that of a stage (no {WEIGHTS})"
            )
        place = find_stage(folder, read_folder(folder)[0])
    stage = place.resolve()
    if stage.parent.name == EPOCHS:
        stage = stage.parents[1]
    recipe, _ = read_folder(stage.parents[3])
    model, header = stored_model(recipe, place)
    return StoredModel(model, recipe, header.class_names, place)


def stored_model(recipe: Recipe, place: Path) -> tuple[DomainModel, ModelHeader]:
    """The model of a stage in evaluation mode, and what its weights say about it.

    Raises:
        CheckpointError: Weights that are truncated or do not fit the recipe.
    """
    header = read_header(place / WEIGHTS)
    task: Task = TASKS.load(recipe.task.name)(header.class_names, **recipe.task.options)
    named, domains = recipe.backbone, header.domain_names
    model: DomainModel = task.create_model(named.name, recipe.norm, domains, **named.options)
    attach_encoder(recipe, model)
    load_model(model, place / WEIGHTS)
    return model.eval(), header


def finished_stages(folder: Path) -> list[Path]:
    """Folders of the stages of a run that have weights."""
    return sorted(file.parent for file in folder.glob(f"stages/*/*/*/{WEIGHTS}"))


def find_stage(folder: Path, recipe: Recipe, name: str = "") -> Path:
    """Folder of a finished stage.

    Args:
        folder: Of the run.
        recipe: Of the run.
        name: The end of its path, such as ``seed1/tent``; that of the recipe's method when empty.

    Raises:
        CheckpointError: There is none, or several to choose from.
    """
    finished = finished_stages(folder)
    wanted = Path(name or recipe.method.label).parts
    found = [place for place in finished if place.parts[-len(wanted) :] == wanted]
    if len(found) == 1:
        return found[0]
    if not finished:
        raise CheckpointError(f"{folder}: no finished stage; go on with `run --resume {folder}`")
    if name and not found:
        known = ["/".join(place.parts[-3:]) for place in finished]
        raise CheckpointError(f"{folder}: {unknown('stage', name, known)}")
    listing = "".join(f"\n  {place}" for place in (found or finished)[:_SHOWN])
    raise CheckpointError(f"{folder}: {len(found or finished)} finished stages, name one:{listing}")


def kept_epoch(place: Path, epoch: int) -> Path:
    """Folder of an epoch of a stage, which is counted from 1.

    Raises:
        CheckpointError: It was not kept.
    """
    found = place / EPOCHS / str(epoch)
    if not (found / WEIGHTS).is_file():
        numbers = sorted(int(one.parent.name) for one in place.glob(f"{EPOCHS}/*/{WEIGHTS}"))
        known = f"kept: {', '.join(map(str, numbers))}" if numbers else "none was kept"
        raise CheckpointError(
            f"{place}: no epoch {epoch}; {known} (trainer.keep_best and keep_every keep some)"
        )
    return found


@dataclass(frozen=True)
class Said:
    """What an output says of the classes of an image."""

    classes: tuple[str, ...]  # the most probable; of findings all above one half; none for masks
    confidence: float  # probability of the prediction, mean over findings or pixels
    shares: tuple[float, ...] = ()  # probability of each class, (K,); for masks none


@dataclass(frozen=True)
class Reading:
    """An image as the network takes it, (C, H, W), and its own height and width, or why not."""

    image: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    problem: str = ""


class FileModel:
    """The model of a finished stage with what its images go through."""

    def __init__(self, stored: StoredModel) -> None:
        recipe = stored.recipe
        self.task: Task = TASKS.load(recipe.task.name)(stored.class_names, **recipe.task.options)
        self.preprocessing: Preprocessing = preprocessing_of(recipe, stored.model)
        self.task.set_window(self.preprocessing.crop)
        if recipe.trainer.threads is not None:
            torch.set_num_threads(recipe.trainer.threads)
        layout = torch.channels_last if recipe.trainer.channels_last else torch.preserve_format
        self.model = stored.model.to(memory_format=layout)

    @property
    def makes_masks(self) -> bool:
        """Whether outputs are (K, H, W)."""
        return self.task.labels == "segmentation"

    def tensor(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pixels (h, w, 3) -> the input of the network, (C, H, W)."""
        return self.preprocessing.whole()(pixels)

    def said(self, output: Tensor) -> Said:
        """What an output says, (K,) or (K, H, W).

        Raises:
            CheckpointError: It is no number.
        """
        output, names = output.float(), self.task.class_names
        if bool(output.isnan().any()):
            raise CheckpointError(
                "the model predicts NaN: its training or its adaptation to a stream has diverged; "
                "train it again, or start the stream anew"
            )
        if self.task.labels == "multilabel":
            shares = output.sigmoid()
            found = tuple(c for c, p in zip(names, shares.tolist(), strict=True) if p > 0.5)
            confidence = float(torch.maximum(shares, 1 - shares).mean())
            return Said(found, confidence, tuple(shares.tolist()))
        shares = output.softmax(0)
        best = shares.max(0)
        if output.ndim > 1:
            return Said((), float(best.values.mean()))
        chosen = names[int(best.indices)]
        return Said((chosen,), float(best.values), tuple(shares.tolist()))

    def mask(self, output: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Classes (h, w) at the image's own size, 255 where it was cut off, of (K, H, W)."""
        restored, inside = self.preprocessing.restored(output, *size)
        classes = restored.argmax(0).masked_fill(~inside, VOID)
        return classes.cpu().numpy().astype(np.uint8)


def none_readable(place: Path, problems: Sequence[str]) -> DataError:
    """The error about images of which none can be read."""
    return DataError(
        f"{place}: {counted(len(problems), 'file')}, none of them readable, expected a folder of "
        f"images, or a text file with a path per line; the first is {problems[0]}"
    )
