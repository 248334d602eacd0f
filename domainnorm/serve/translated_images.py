"""Image files in the style of another domain or image, by the translator of a finished run."""

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
from domainnorm.run.models import StoredModel, load_stored
from domainnorm.serve.image_list import below, name_of
from domainnorm.serve.image_sources import FileImages, find_source
from domainnorm.serve.serving_options import TranslateOptions
from domainnorm.serve.stored import FileModel
from domainnorm.storage import make_folders
from domainnorm.tasks.translator import PixelTranslator, style_of_domains, style_of_image
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
    """Write images in the style of a domain or an image, at their own size, and sheets of some.

    The network says what changes at ``data.image_size`` of the run, at which it was trained; the
    change is enlarged and added to the pixels of the file, so that what it does not touch stays as
    sharp as it was. PNG, TIFF and BMP keep name and format, others become PNG.

    Args:
        folder: A run, or one of its stages.
        images: A folder of images, searched below as well, a list of files, or an image.
        options: The domain or image whose style they get, and two domains for a strip between.
        output: A folder that is not there yet, or empty; ``<stage>/translations/<images>-<domain>``
            when None.

    Raises:
        CheckpointError: No finished stage, one of another task, or an output that holds files.
        ConditionError: An unknown domain, or a way from one to itself.
        DataError: No images, one that cannot be read or written without loss, or two that would be
            one file.
    """
    stored = load_stored(folder)
    translator = _Translator(stored, options)
    name = options.to if translator.shown is None else Path(options.to).stem
    place = output or stored.place / "translations" / f"{name_of(images)}-{name}"
    _check_free(place)
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
        for name in options.between or ():
            if name not in self.names:
                raise ConditionError(f"--between: {unknown('domain', name, self.names)}")
        if options.between is not None and len(set(options.between)) == 1:
            raise ConditionError(f"--between: '{options.between[0]}' twice, expected two domains")
        self.made = PixelTranslator(self.model, self.files.preprocessing)
        self.shown: NDArray[np.uint8] | None = None  # the image whose style is asked for
        self.asked = self._asked(options.to)

    def write(self, named: Sequence[tuple[Path, Path]], made: Path) -> dict[str, NDArray[np.uint8]]:
        """Write every image; pixels of the first few, by name."""
        kept: dict[str, NDArray[np.uint8]] = {}
        console = create_console(error=True)
        with Progress(console=console, disable=not console.is_terminal) as bar:
            progress = bar.add_task("images", total=len(named))
            files = [file for _, file in named]
            for (name, _), pixels in zip(named, read_all(self._read, files), strict=True):
                if len(kept) < _ROWS:
                    kept[str(name)] = pixels
                file = made / _file_of(name)
                make_folders(file.parent)
                if not cv2.imwrite(str(file), self.made(pixels, self.asked)[0][..., ::-1]):
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
        every = self._of(torch.eye(len(self.names)))
        captions = list(self.names)
        if self.shown is not None:
            every = {name: torch.cat([given, self.asked[name]]) for name, given in every.items()}
            captions.append(Path(self.options.to).name)
            rows = {f"{captions[-1]}, whose style it is": self.shown, **rows}
        drawn = [(every, captions)]
        if self.options.between is not None:
            first, last = (self._row(name) for name in self.options.between)
            shares = torch.linspace(0, 1, _STEPS)[:, None]
            captions = [f"{share:.0%}" for share in shares[:, 0].tolist()]
            captions[0], captions[-1] = self.options.between
            drawn.append((self._of(first + shares * (last - first)), captions))
        for name, (styles, captions) in zip(self.figures, drawn, strict=True):
            images = {one: [pixels, *self.made(pixels, styles)] for one, pixels in rows.items()}
            told = {one: ["as it is", *captions] for one in rows}
            report.save_contact_sheet(images, made / name, captions=told)

    def _row(self, domain: str) -> Tensor:
        """Weights (1, D) of one domain alone."""
        return torch.eye(len(self.names))[[self.names.index(domain)]]

    def _of(self, weights: Tensor) -> dict[str, Tensor]:
        return style_of_domains(self.model, weights)

    def _asked(self, asked: str) -> dict[str, Tensor]:
        """The style of a domain, or of an image.

        Raises:
            ConditionError: Neither, or an image whose style the network cannot be given.
            DataError: An image that cannot be read.
        """
        if asked in self.names:
            return self._of(self._row(asked))
        file = Path(asked)
        if not file.is_file():
            raise ConditionError(f"--to: {unknown('domain', asked, self.names)}")
        if not self.model.end_to_end:
            raise ConditionError(
                f"--to: {asked} is an image, and this run gives the styles of domains: "
                f"{', '.join(self.names)}; those of images need one trained with 'encoder: style', "
                "'condition: embedding' and 'norm: {statistics: instance, modulation: hyper}'"
            )
        self.shown = self._read(file)
        with torch.inference_mode():
            return style_of_image(self.model, self.made.tensor(self.shown))

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


def _check_free(place: Path) -> None:
    """Raise a CheckpointError for a file, or a folder that holds anything."""
    if place.exists() and not place.is_dir():
        raise CheckpointError(f"{place}: is a file, expected a folder; choose another --output")
    found: Iterator[Path] = place.iterdir() if place.is_dir() else iter(())
    if (first := next(found, None)) is not None:
        raise CheckpointError(
            f"{place}: holds files already, such as {first.name}; choose another --output, or "
            "delete it"
        )
