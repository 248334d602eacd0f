"""Image files of classes and domains, made of noise by the generator of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from domainnorm import report
from domainnorm.errors import ConditionError, DataError, unknown
from domainnorm.run.models import StoredModel, check_task, load_stored
from domainnorm.serve.serving_options import GenerateOptions
from domainnorm.serve.stored import FileModel, words_for
from domainnorm.serve.written_images import SHEET, new_folder
from domainnorm.storage import make_folders
from domainnorm.tasks.translator import image_pixels
from domainnorm.terminal import create_console

_BATCH = 64
_SHOWN = 3  # images of a class and domain in the sheet
_NO_CLASS = "unlabelled"  # the folder that dataset `folder` takes for that


@dataclass(frozen=True)
class Generated:
    """What `generate_run` has written.

    Args:
        folder: Where it lies.
        images: How many.
        domains: Of which domains.
        classes: Of which classes; none for images of words alone.
    """

    folder: Path
    images: int
    domains: tuple[str, ...]
    classes: tuple[str, ...]


def generate_run(
    folder: Path, options: GenerateOptions | None = None, output: Path | None = None
) -> Generated:
    """Write images of classes and domains as PNG, and a sheet of some.

    They lie in ``<output>/<domain>/<class>/``, which dataset ``folder`` reads, at
    ``data.image_size``. The noise hangs on the seed, the class and the number of an image: the same
    number in two domains starts from the same noise.

    Args:
        folder: A run, or one of its stages.
        options: How many of what; of all classes and domains when None.
        output: A folder that is not there yet, or empty; ``<stage>/generated/seed<n>`` when None.

    Raises:
        CheckpointError: No finished stage, one of another task, or an output that holds files.
        ConditionError: An unknown domain or class, or words for a run that reads none.
        DataError: A file that cannot be written.
    """
    options = options or GenerateOptions()
    stored = load_stored(folder)
    place = output or stored.place / "generated" / f"seed{options.seed}"
    maker = _Maker(stored, options)
    with new_folder(place) as made:
        shown = maker.write(made)
        captions = {name: [d for d in maker.domains for _ in shown[name][d]] for name in shown}
        tiles = {name: [one for of in shown[name].values() for one in of] for name in shown}
        report.save_contact_sheet(tiles, made / SHEET, captions=captions)
    number = options.count * len(maker.domains) * len(maker.classes)
    classes = tuple(name for name, label in maker.classes.items() if label >= 0)
    return Generated(place, number, tuple(maker.domains), classes)


class _Maker:
    """The network of a run, and what it is asked for."""

    def __init__(self, stored: StoredModel, options: GenerateOptions) -> None:
        check_task(stored, "generation", "digits/generate")
        files = FileModel(stored)
        self.model, self.options = files.model, options
        task: Any = files.task
        if options.steps is not None:
            task.steps = options.steps
        if options.guidance is not None:
            task.guidance = options.guidance
        self.task = task
        channels = len(files.preprocessing.mean)
        self.shape = (channels, files.preprocessing.height, files.preprocessing.width)
        self.domains = _asked("--domain", "domain", options.domain, self.model.domain_names)
        known = stored.class_names
        asked = _asked("--class", "class", options.class_names, known)
        self.classes = {name: known.index(name) for name in asked}
        self.attributes: dict[str, list[str]] = {}
        if options.text is not None:
            self.attributes = words_for(stored, "--text", options.text)
            if options.class_names is None:
                self.classes = {_NO_CLASS: -1}

    def write(self, place: Path) -> dict[str, dict[str, list[NDArray[np.uint8]]]]:
        """Write every image; pixels of the first few, by class and domain."""
        shown: dict[str, dict[str, list[NDArray[np.uint8]]]] = {one: {} for one in self.classes}
        console, count = create_console(error=True), self.options.count
        with Progress(console=console, disable=not console.is_terminal) as bar:
            total = len(self.domains) * len(self.classes) * count
            progress = bar.add_task("images", total=total)
            for domain in self.domains:
                for name in self.classes:
                    folder = place / domain / name
                    make_folders(folder)
                    shown[name][domain] = []
                    for first in range(0, count, _BATCH):
                        numbers = range(first, min(first + _BATCH, count))
                        for number, pixels in zip(
                            numbers, self._made(domain, name, numbers), strict=True
                        ):
                            file = folder / f"{number:0{len(str(count - 1))}}.png"
                            if not cv2.imwrite(str(file), pixels[..., ::-1]):
                                raise DataError(f"{file}: cannot be written; free some space")
                            if number < _SHOWN:
                                shown[name][domain].append(pixels)
                        bar.advance(progress, len(numbers))
        return shown

    def _made(self, domain: str, name: str, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Pixels (N, H, W, 3) of images of a class and domain, by their numbers."""
        label = self.classes[name]
        row, count = self.model.domain_names.index(domain), len(numbers)
        mixed = [np.random.SeedSequence((self.options.seed, label + 1, one)) for one in numbers]
        seeds = [int(one.generate_state(1)[0]) for one in mixed]
        embedding = None
        if self.model.reads_attributes:
            given = {column: told * count for column, told in self.attributes.items()}
            embedding = self.model.embed(torch.zeros(count, 1), given)
        made = self.task.made(
            self.model,
            torch.full((count,), label),
            seeds,
            shape=self.shape,
            domain=torch.full((count,), row),
            embedding=embedding,
        )
        return image_pixels(made)


def _asked(option: str, kind: str, names: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """Names that were given, each once, all that are known where none was."""
    for name in names or ():
        if name not in known:
            raise ConditionError(f"{option}: {unknown(kind, name, known)}")
    return list(dict.fromkeys(names or known))
