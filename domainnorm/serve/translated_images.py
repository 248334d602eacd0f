"""Image files in the style of another domain, by the translator of a finished run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from domainnorm import report
from domainnorm.data.images import opened, read_all, read_image
from domainnorm.errors import CheckpointError, ConditionError, DataError, unknown
from domainnorm.serve.image_list import below, name_of
from domainnorm.serve.image_sources import FileImages, find_source
from domainnorm.serve.serving_options import TranslateOptions
from domainnorm.serve.stored import FileModel, StoredModel, load_stored
from domainnorm.storage import make_folders
from domainnorm.terminal import create_console

SHEET = "sheet.png"
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
_ROWS, _STEPS = 6, 5  # images in a sheet; columns between two domains, both included


@dataclass(frozen=True)
class Translated:
    """What `translate_run` has written.

    Args:
        folder: Where it lies.
        images: How many.
        renamed: Files that are called otherwise than their originals, since these lose detail.
        figures: Names of the sheets.
    """

    folder: Path
    images: int
    renamed: int
    figures: tuple[str, ...]


def translate_run(
    folder: Path, images: Path, options: TranslateOptions, output: Path | None = None
) -> Translated:
    """Write images in the style of a domain, at their own size, and sheets of some of them.

    The network says what changes at ``data.image_size`` of the run, at which it was trained; the
    change is enlarged and added to the pixels of the file, so that what it does not touch stays as
    sharp as it was. PNG, TIFF and BMP keep name and format, others become PNG.

    Args:
        folder: A run, or one of its stages.
        images: A folder of images, searched below as well, a list of files, or an image.
        options: The domain, and two domains for a strip between them.
        output: A folder that is not there yet, or empty; ``<stage>/translations/<images>-<domain>``
            when None.

    Raises:
        CheckpointError: No finished stage, one of another task, or an output that holds files.
        ConditionError: An unknown domain, or a way from one to itself.
        DataError: No images, one that cannot be read or written without loss, or two that would be
            one file.
    """
    stored = load_stored(folder)
    place = output or stored.place / "translations" / f"{name_of(images)}-{options.to}"
    translator = _Translator(stored, options)
    check_free(place)
    source = find_source(stored.recipe, images, place)
    if not isinstance(source, FileImages):
        raise DataError(
            f"{images}: the run reads DICOM files or volumes, and translate writes plain images; "
            "train on images for that"
        )
    named = source.listed.files
    _check_names(images, (name for name, _ in named), translator.figures)
    make_folders(place.parent)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as made:
        rows = translator.write(named, Path(made))
        translator.draw(rows, Path(made))
        make_folders(place)
        for entry in Path(made).iterdir():
            entry.replace(place / entry.name)
    renamed = sum(_file_of(name).name != name.name for name, _ in named)
    return Translated(place, len(named), renamed, tuple(translator.figures))


class _Translator:
    """The network of a run, and what its images go through."""

    def __init__(self, stored: StoredModel, options: TranslateOptions) -> None:
        if stored.recipe.task.name != "translation":
            raise CheckpointError(
                f"{stored.place}: a model of task '{stored.recipe.task.name}', expected "
                "'translation'; train such a one, as recipe medical/stain_translation does"
            )
        self.files, self.options = FileModel(stored), options
        self.model: Any = self.files.model
        self.names: Sequence[str] = self.model.domain_names
        for option, given in (("to", (options.to,)), ("between", options.between or ())):
            for name in given:
                if name not in self.names:
                    raise ConditionError(f"--{option}: {unknown('domain', name, self.names)}")
        if options.between is not None and len(set(options.between)) == 1:
            raise ConditionError(f"--between: '{options.between[0]}' twice, expected two domains")
        network: Any = self.model.backbone
        self.grey = len(network.low) == 1
        self.unit = 255 / (network.high - network.low)  # of a pixel, in a normalized image

    def write(self, named: Sequence[tuple[Path, Path]], made: Path) -> dict[str, NDArray[np.uint8]]:
        """Write every image; pixels of the first few, by name."""
        kept: dict[str, NDArray[np.uint8]] = {}
        asked, console = self._rows(self.options.to), create_console(error=True)
        with Progress(console=console, disable=not console.is_terminal) as bar:
            progress = bar.add_task("images", total=len(named))
            files = [file for _, file in named]
            for (name, _), pixels in zip(named, read_all(self._read, files), strict=True):
                if len(kept) < _ROWS:
                    kept[str(name)] = pixels
                file = made / _file_of(name)
                make_folders(file.parent)
                if not cv2.imwrite(str(file), self._made(pixels, asked)[0][..., ::-1]):
                    raise DataError(f"{file}: cannot be written; free some space")
                bar.advance(progress)
        return kept

    @property
    def figures(self) -> list[str]:
        """Names of the files that `draw` writes."""
        between = self.options.between
        return [SHEET, *([] if between is None else [f"between-{'-'.join(between)}.png"])]

    def draw(self, rows: dict[str, NDArray[np.uint8]], made: Path) -> None:
        """Draw inputs in the style of every domain, and of mixtures of two if asked."""
        every = torch.eye(len(self.names))
        drawn = [(every, list(self.names))]
        if self.options.between is not None:
            first, last = (self._rows(name) for name in self.options.between)
            shares = torch.linspace(0, 1, _STEPS)[:, None]
            captions = [f"{share:.0%}" for share in shares[:, 0].tolist()]
            captions[0], captions[-1] = self.options.between
            drawn.append((first + shares * (last - first), captions))
        for name, (weights, captions) in zip(self.figures, drawn, strict=True):
            images = {one: [pixels, *self._made(pixels, weights)] for one, pixels in rows.items()}
            told = {one: ["as it is", *captions] for one in rows}
            report.save_contact_sheet(images, made / name, captions=told)

    def _rows(self, domain: str) -> Tensor:
        """Weights (1, D) of one domain alone."""
        return torch.eye(len(self.names))[[self.names.index(domain)]]

    def _read(self, file: Path) -> NDArray[np.uint8]:
        """Pixels (h, w, 3) of a file that 8 bits and one frame hold whole.

        Raises:
            DataError: It cannot be read, or holds more.
        """
        with opened(file) as image:
            frames, bands = getattr(image, "n_frames", 1), image.getbands()
            clear = "A" in bands or "transparency" in image.info  # of one colour, in a palette too
        stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        held = {
            "more than 8 bits": stored is not None and stored.dtype != np.uint8,
            f"{frames} frames": frames > 1,
            "transparency": clear,
            f"channels {', '.join(bands)}": bands[0] not in ("R", "L", "P", "1", "Y"),
        }
        if what := next((name for name, is_so in held.items() if is_so), ""):
            raise DataError(
                f"{file}: has {what}, and translate writes 8-bit grey or colour images of one "
                "frame, without transparency; convert the file, or leave it out"
            )
        return read_image(file)

    @torch.inference_mode()
    def _made(self, pixels: NDArray[np.uint8], weights: Tensor) -> NDArray[np.uint8]:
        """Pixels (h, w, 3) under each of several weights of domains (M, D): (M, h, w, 3)."""
        image = self.files.tensor(pixels)[None]
        own = pixels
        if self.grey:
            own = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
        found = []
        for row in weights:
            change = (self.model(image, weights=row[None]) - image)[0] * self.unit
            enlarged, _ = self.files.preprocessing.restored(change, *pixels.shape[:2])
            values = own + enlarged.movedim(0, -1).numpy()
            shown = np.clip(np.rint(values), 0, 255).astype(np.uint8)
            found.append(np.repeat(shown, 3, 2) if self.grey else shown)
        return np.stack(found)


def _file_of(name: Path) -> Path:
    """Where the translation of an image is written, below the folder of all."""
    own = below(name)
    return own if own.suffix.lower() in _LOSSLESS else own.with_suffix(".png")


def _check_names(place: Path, names: Iterable[Path], figures: Iterable[str]) -> None:
    """Raise a DataError for images that would be written over each other, or over a sheet."""
    taken = {Path(name): "the sheet that is drawn" for name in figures}
    for name in names:
        file = _file_of(name)
        other = taken.get(Path(file.parts[0])) or taken.setdefault(file, str(name))
        if other != str(name):
            raise DataError(
                f"{place}: {name} would be written to {file}, as {other}; rename the image"
            )


def check_free(place: Path) -> None:
    """Raise a CheckpointError for a file, or a folder that holds anything."""
    if place.exists() and not place.is_dir():
        raise CheckpointError(f"{place}: is a file, expected a folder; choose another --output")
    found: Iterator[Path] = place.iterdir() if place.is_dir() else iter(())
    if (first := next(found, None)) is not None:
        raise CheckpointError(
            f"{place}: holds files already, such as {first.name}; choose another --output, or "
            "delete it"
        )
