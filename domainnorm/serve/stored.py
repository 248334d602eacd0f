"""The model that a finished stage has left, and how it takes image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainnorm.data import Preprocessing
from domainnorm.data.masks import VOID
from domainnorm.errors import CheckpointError, ConditionError, DataError, counted, unknown
from domainnorm.registry import TASKS
from domainnorm.run.models import StoredModel as StoredModel  # noqa: PLC0414 - offered here
from domainnorm.run.models import load_stored as load_stored  # noqa: PLC0414
from domainnorm.run.models import preprocessing_of
from domainnorm.tasks import Task


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


def words_for(stored: StoredModel, option: str, text: str) -> dict[str, list[str]]:
    """Attributes of one image by words: the text itself, or ``scanner=A, hour=20`` of several.

    Args:
        stored: The model, whose encoder reads attributes.
        option: Where the words stand, for messages.
        text: The words.

    Raises:
        ConditionError: It reads none, there is another column, or nothing is known of them.
    """
    model: Any = stored.model
    columns = stored.recipe.data.attributes if model.reads_attributes else []
    if not columns:
        raise ConditionError(
            f"{option}: '{text}' are words, and this run reads none; train with 'encoder: text', "
            "'condition: embedding' and data.attributes: [COLUMN]"
        )
    if len(columns) == 1:
        name, equals, value = text.partition("=")
        given = {columns[0]: value if equals and name.strip() == columns[0] else text}
    else:
        pairs = [part.partition("=") for part in text.split(",")]
        given = {name.strip(): value.strip() for name, _, value in pairs}
        if len(given) < len(pairs):
            raise ConditionError(f"{option}: '{text}' names a column twice; name it once")
    for name, value in given.items():
        if name not in columns:
            told = f"write {columns[0]}=..., {columns[1]}=..."
            raise ConditionError(f"{option}: {unknown('column', name, columns)}; {told}")
        missing = model.encoder.features({name: [value]})[0, model.encoder.columns.index(name)]
        if missing == 1:
            raise ConditionError(
                f"{option}: nothing is known of '{value}'; training images have other values of "
                f"{name}"
            )
    return {name: [value] for name, value in given.items()}


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
