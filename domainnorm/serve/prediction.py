"""Predictions of image files by a finished model: a table, masks and a figure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from rich.progress import Progress
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.data.images import read_all
from domainnorm.errors import CheckpointError, ConditionError, DataError, unknown
from domainnorm.evaluation import write_json
from domainnorm.ranges import ESTIMATED, Unseen
from domainnorm.run.machine import quiet_lightning, readable_refusals
from domainnorm.run.models import StoredModel, load_stored
from domainnorm.run.run_folder import WEIGHTS
from domainnorm.serve.given_domains import DomainGiver, GivenDomain, check_told, policy_of
from domainnorm.serve.image_list import ImageList, name_of
from domainnorm.serve.image_sources import MASKS, ImageSource, find_source
from domainnorm.serve.prediction_table import Predicted, PredictionFigures, PredictionTable
from domainnorm.serve.serving_options import PredictOptions
from domainnorm.serve.stored import FileModel, Reading, none_readable
from domainnorm.storage import DAMAGED, digest_of, folder_beside, make_folders
from domainnorm.terminal import create_console

ASKED, PREDICTIONS = "prediction.json", "predictions.csv"
OVERLAYS, SHEET = "overlays.png", "classes.png"
_OWN = (ASKED, PREDICTIONS, MASKS, OVERLAYS, SHEET)


def predict_run(
    folder: Path, images: Path, output: Path | None = None, options: PredictOptions | None = None
) -> Predicted:
    """Let the model of a finished stage predict image files; the order makes no difference.

    It is as in the tests of the run: images at ``data.image_size``, windows and flips of its task,
    its precision; masks are enlarged to the size of their image, 255 where ``data.fit: cover`` has
    cut a border off. Files that cannot be read are named in the table and passed over. The output
    appears when all is predicted, and replaces an earlier prediction of the same images.

    Args:
        folder: A run, or one of its stages.
        images: A folder of images, searched below as well, a text file with a path per line, a
            table with the column ``image``, see `list_images`, or an image.
        output: Where the files go; ``<stage>/predictions/<name of the images>`` when None.
        options: How they are predicted.

    Raises:
        CheckpointError: No finished stage, or an output folder that holds something else.
        ConditionError: A domain that is needed and not told, an unknown one, a policy that the
            model cannot carry out, or attributes that are missing.
        DataError: No images, none that can be read, a wrong table, or two images with one mask.
    """
    options = options or PredictOptions()
    stored = load_stored(folder)
    stored.check_says()
    place = output or stored.place / "predictions" / name_of(images)
    check_free(place, images)
    policy = policy_of(stored.recipe, stored.model, options.unseen)
    model: Any = stored.model
    source = find_source(
        stored.recipe,
        images,
        place,
        white=options.white,
        # A domain that is asked for is that of all scanners.
        known=model.domain_names if options.domain is None else (),
        attributes=model.encoder.columns if model.reads_attributes else (),
    )
    predictor = _Predictor(stored, source, policy, options)
    if predictor.files.makes_masks:
        source.check_masks()
    with replaced(place) as made:
        asked = {
            "model": digest_of(stored.place / WEIGHTS),
            "stage": str(stored.place.resolve()),
            "images": str(images.resolve()),
            "domain": options.domain,
            "unseen": policy,
            "far": predictor.giver.model.far,
            "batch_size": predictor.batch_size,
            **source.asked(),
        }
        write_json(asked, made / ASKED)
        done = predictor.write(made, place, f"{stored.recipe.name}: {images.name}")
    return replace(done, online=stored.online)


class _Predictor:
    """The model with the images it predicts."""

    def __init__(
        self, stored: StoredModel, source: ImageSource, policy: Unseen, options: PredictOptions
    ) -> None:
        recipe, model = stored.recipe, stored.model
        self.source, self.listed = source, (listed := source.listed)
        self.batch_size = options.batch_size or recipe.data.eval_batch_size
        domains = _domains(listed, model, options.domain)
        readable = [one for number, one in enumerate(domains) if number not in source.problems]
        check_told(model, policy, readable, str(listed.place))
        self.labels = [model.domain_names.index(one) if one else -1 for one in domains]
        self.attributes = _attributes(listed, model, policy, domains)
        self.files = FileModel(stored)
        quiet_lightning()
        # A run of a GPU is used elsewhere, too.
        accelerator = "cpu" if recipe.trainer.accelerator == "cpu" else "auto"
        with readable_refusals():
            self.fabric = Fabric(
                accelerator=accelerator, devices=1, precision=recipe.trainer.precision
            )
            self.fabric.setup_module(self.files.model)  # moved and converted in place
        self.dtype = next(self.files.model.parameters()).dtype
        self.giver = DomainGiver(self.files.model.eval(), policy, options.far)

    def write(self, made: Path, place: Path, title: str) -> Predicted:
        """Write table, masks and figure to ``made``; the summary says ``place``."""
        masks = self.files.makes_masks
        figures = PredictionFigures(self.files, self.source)
        with (made / PREDICTIONS).open("w", encoding="utf-8", newline="") as file:
            table = PredictionTable(file, self.files.task.class_names, masks=masks)
            self._predict_all(made, table, figures)
        self.source.finish(made)
        if len(table.problems) == len(self.listed):
            raise none_readable(self.listed.place, list(table.problems.values()))
        save = figures.save_overlays if masks else figures.save_classes
        save(made / (OVERLAYS if masks else SHEET), title)
        unused = [name for name in self.listed.given if name not in self.attributes]
        return table.summary(place, unused)

    def _predict_all(self, made: Path, table: PredictionTable, figures: PredictionFigures) -> None:
        console = create_console(error=True)
        with Progress(console=console, disable=not console.is_terminal) as bar:
            progress = bar.add_task("images", total=len(self.listed))
            every, said_last = range(len(self.listed)), ""
            for first in every[:: self.batch_size]:
                numbers = every[first : first + self.batch_size]
                readings = dict(zip(numbers, read_all(self._read, numbers), strict=True))
                outputs = self._outputs(readings)
                for number in numbers:
                    name = self.listed.files[number][0]
                    reading = readings[number]
                    if reading.problem:
                        if reading.problem != said_last:  # slices of one volume
                            line = f"{name}: unreadable: {reading.problem}"
                            bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
                        table.add_problem(str(name), said_last := reading.problem)
                        continue
                    output, given = outputs[number]
                    said = self.files.said(output)
                    mask = self._mask(made, number, output, reading.size)
                    table.add(str(name), said, given, mask)
                    figures.add(number, said, given, output)
                bar.advance(progress, len(numbers))

    def _mask(
        self, made: Path, number: int, output: Tensor, size: tuple[int, int]
    ) -> tuple[str, Any] | None:
        if not self.files.makes_masks:
            return None
        mask = self.files.mask(output, size)
        return self.source.write_mask(made, number, mask), mask

    def _read(self, number: int) -> Reading:
        try:
            pixels = self.source.read(number)
        except DataError as error:
            return Reading(problem=str(error))
        return Reading(self.files.tensor(pixels), pixels.shape[:2])

    @torch.inference_mode()
    def _outputs(self, readings: dict[int, Reading]) -> dict[int, tuple[Tensor, GivenDomain]]:
        """Number of an image -> its output, and what it was predicted under."""
        found: dict[int, tuple[Tensor, GivenDomain]] = {}
        images = {number: one.image for number, one in readings.items() if one.image is not None}
        # Apart: labels are exact where the weights of a mixture are not.
        for told in (True, False):
            numbers = [number for number in images if (self.labels[number] >= 0) == told]
            if not numbers:
                continue
            image = torch.stack([images[number] for number in numbers])
            image = image.to(self.fabric.device, self.dtype)
            domain = torch.tensor([self.labels[number] for number in numbers], device=image.device)
            attributes = {
                name: [values[number] for number in numbers]
                for name, values in self.attributes.items()
            }
            with self.fabric.autocast():
                given, said = self.giver(image, domain, attributes)
                output = self.files.task.predict(self.files.model, image, **given)
            found |= dict(zip(numbers, zip(output, said, strict=True), strict=True))
        return found


def _domains(listed: ImageList, model: DomainModel, asked: str | None) -> Sequence[str]:
    """The domain that is told of each image, empty where none is; unknown ones are refused."""
    listed.check_domains(model.domain_names)
    if asked is None:
        return listed.domains
    if asked not in model.domain_names:
        raise ConditionError(
            f"--domain: {unknown('domain', asked, model.domain_names)}; leave it out for images of "
            "another domain"
        )
    if any(listed.domains):
        raise ConditionError(
            f"--domain: '{asked}', but {listed.place} also gives domains; leave out the option or "
            "the column domain"
        )
    return [asked] * len(listed)


def _attributes(
    listed: ImageList, model: DomainModel, policy: Unseen, domains: Sequence[str]
) -> dict[str, Sequence[str]]:
    """Attributes of all images that the model reads; none where it reads none, or needs none."""
    encoder: Any = model.encoder
    if not model.reads_attributes:
        return {}
    if model.end_to_end:
        return listed.attributes(encoder.columns, "")
    if policy not in ESTIMATED or all(domains):
        return {}
    names = ", ".join(model.domain_names)
    return listed.attributes(encoder.columns, f"; or add --domain, one of {names}")


def check_free(place: Path, images: Path) -> None:
    """Raise a CheckpointError for a folder of anything but a prediction of the same images."""
    found = sorted(entry.name for entry in place.iterdir()) if place.exists() else []
    others = found if ASKED not in found else [name for name in found if name not in _OWN]
    if others:
        listing = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise CheckpointError(
            f"{place}: holds other files ({listing}), expected a new or empty folder, or a former "
            "prediction of these images, which is replaced; choose another --output"
        )
    former = _former(place / ASKED) if found else str(images.resolve())
    if former != str(images.resolve()):
        raise CheckpointError(
            f"{place}: holds predictions of other images, {former}; choose another --output, or "
            "delete it"
        )


def _former(asked: Path) -> str:
    """The images of an earlier prediction."""
    try:
        return str(json.loads(asked.read_text(encoding="utf-8"))["images"])
    except DAMAGED as error:
        raise CheckpointError(
            f"{asked}: cannot be read ({error}); choose another --output"
        ) from error


@contextmanager
def replaced(place: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of an earlier prediction at the end.

    After an error, or when interrupted, what was there before stays as it was.
    """
    with folder_beside(place) as made:
        yield made
        make_folders(place)
        # First what the folder is known by: killed from here on, it can be replaced again.
        (made / ASKED).replace(place / ASKED)
        for name in _OWN[1:]:
            if (place / name).is_dir():
                shutil.rmtree(place / name)
            (place / name).unlink(missing_ok=True)
        for entry in made.iterdir():
            entry.replace(place / entry.name)
