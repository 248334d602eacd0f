"""Image files that the network of a finished run gives: in another style, or restored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainnorm import report
from domainnorm.data.augmentation.degradation import bicubic
from domainnorm.data.dataset import white_of
from domainnorm.data.images import SUFFIXES, WHITE
from domainnorm.errors import ConditionError, DataError, unknown
from domainnorm.recipe.norm import reads_domains
from domainnorm.recipe.schema import parts_of
from domainnorm.run.models import StoredModel, check_task, load_stored
from domainnorm.serve.image_list import name_of
from domainnorm.serve.serving_options import RestoreOptions, TranslateOptions
from domainnorm.serve.stored import FileModel, words_for
from domainnorm.serve.written_images import (
    SHEET,
    WholeImage,
    count_renamed,
    find_files,
    new_folder,
    write_images,
)
from domainnorm.tasks.translator import (
    PixelTranslator,
    in_tiles,
    row_of,
    sees_tiles,
    style_of_domains,
    style_of_image,
)

_STEPS = 5  # columns between two domains, both included
_WORD, _LONGEST = re.compile(r"[^\w=.,-]+"), 60  # what is no part of the name of a folder


@dataclass(frozen=True)
class Translated:
    """What `translate_run` or `restore_run` has written.

    Args:
        folder: Where it lies.
        images: How many.
        renamed: Files that are called otherwise than their originals, since these lose detail.
        figures: Names of the sheets.
        seams: Whether tiles were normalized by moments of their own.
    """

    folder: Path
    images: int
    renamed: int
    figures: tuple[str, ...]
    seams: bool = False


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
    name = Path(options.to).stem if translator.shown is not None else _WORD.sub("_", options.to)
    place = output or stored.place / "translations" / f"{name_of(images)}-{name[:_LONGEST]}"
    source = find_files(stored.recipe, images, place, translator.figures, "translate")
    with new_folder(place) as made:
        rows = write_images(source, translator.change, made)
        translator.draw({name: before.pixels for name, (before, _) in rows.items()}, made)
    seams = translator.made.cut and sees_tiles(translator.model)
    figures = tuple(translator.figures)
    return Translated(place, len(source.listed), count_renamed(source), figures, seams)


def restore_run(
    folder: Path, images: Path, options: RestoreOptions, output: Path | None = None
) -> Translated:
    """Write images as the network of a run restores them, and a sheet of some of them.

    The network sees all pixels of the file, enlarged by ``data.degrade.scale``, as in training.
    Formats and names are those of `translate_run`.

    Args:
        folder: A run, or one of its stages.
        images: A folder of images, searched below as well, a list of files, or an image.
        options: The domain of the images, and whether they are enlarged.
        output: A folder that is not there yet, or empty; ``<stage>/restored/<images>`` when None.

    Raises:
        CheckpointError: No finished stage, one of another task, or an output that holds files.
        ConditionError: An unknown domain, or none where the network asks for one.
        DataError: See `translate_run`.
    """
    stored = load_stored(folder)
    named = name_of(images) + (f"-{options.domain}" if options.domain else "")
    place = output or stored.place / "restored" / named
    restorer = _Restorer(stored, options)
    source = find_files(stored.recipe, images, place, [SHEET], "restore")
    with new_folder(place) as made:
        rows = write_images(source, restorer.change, made)
        shown = {name: [one.pixels for one in pair] for name, pair in rows.items()}
        captions = {name: ["as it is", "restored"] for name in rows}
        report.save_contact_sheet(shown, made / SHEET, captions=captions)
    seams = restorer.cut and sees_tiles(restorer.model)
    return Translated(place, len(source.listed), count_renamed(source), (SHEET,), seams)


class _Translator:
    """The network of a run, and what its images go through."""

    def __init__(self, stored: StoredModel, options: TranslateOptions) -> None:
        check_task(stored, "translation", "medical/stain_translation")
        self.files, self.options = FileModel(stored), options
        self.model: Any = self.files.model
        self.names: Sequence[str] = self.model.domain_names
        for name in options.between or ():
            if name not in self.names:
                raise ConditionError(f"--between: {unknown('domain', name, self.names)}")
        if options.between is not None and len(set(options.between)) == 1:
            raise ConditionError(f"--between: '{options.between[0]}' twice, expected two domains")
        self.made = PixelTranslator(self.model, self.files.preprocessing, options.tile)
        self.white = white_of(stored.recipe.dataset.options) or WHITE
        self.shown: NDArray[np.uint8] | None = None  # the image whose style is asked for
        self.asked = self._asked(options.to, stored)

    def change(self, image: WholeImage) -> WholeImage:
        """An image in the style that is asked for."""
        (change,) = self.made.changes(image.pixels, self.asked)
        return image.changed(change)

    @property
    def figures(self) -> list[str]:
        """Names of the files that `draw` writes."""
        between = self.options.between
        return [SHEET, *([] if between is None else [f"between-{'-'.join(between)}.png"])]

    def draw(self, rows: dict[str, NDArray[np.uint8]], made: Path) -> None:
        """Draw inputs in the style of every domain, and of mixtures of two if asked."""
        every = self._of(torch.eye(len(self.names)))
        captions = list(self.names)
        if self.options.to not in self.names:
            every = {name: torch.cat([given, self.asked[name]]) for name, given in every.items()}
            captions.append(self.options.to if self.shown is None else Path(self.options.to).name)
        if self.shown is not None:
            rows = {f"{captions[-1]}, whose style it is": self.shown, **rows}
        drawn = [(every, captions)]
        if self.options.between is not None:
            first, last = (row_of(self.model, name) for name in self.options.between)
            shares = torch.linspace(0, 1, _STEPS)[:, None]
            captions = [f"{share:.0%}" for share in shares[:, 0].tolist()]
            captions[0], captions[-1] = self.options.between
            drawn.append((self._of(first + shares * (last - first)), captions))
        for name, (styles, captions) in zip(self.figures, drawn, strict=True):
            images = {one: [pixels, *self.made(pixels, styles)] for one, pixels in rows.items()}
            told = {one: ["as it is", *captions] for one in rows}
            report.save_contact_sheet(images, made / name, captions=told)

    def _of(self, weights: Tensor) -> dict[str, Tensor]:
        return style_of_domains(self.model, weights)

    @torch.inference_mode()
    def _asked(self, asked: str, stored: StoredModel) -> dict[str, Tensor]:
        """The style of a domain, of an image, or of words.

        Raises:
            ConditionError: None of them, or one that the network cannot be given.
            DataError: An image that cannot be read.
        """
        if asked in self.names:
            return self._of(row_of(self.model, asked))
        if self.model.reads_attributes:
            self._check_words(asked)
            return style_of_image(self.model, torch.zeros(1, 1), words_for(stored, "--to", asked))
        file = Path(asked)
        if not file.is_file():
            raise ConditionError(f"--to: {unknown('domain', asked, self.names)}")
        if not self.model.end_to_end:
            raise ConditionError(
                f"--to: {asked} is an image, and this run gives the styles of domains: "
                f"{', '.join(self.names)}; those of images need one trained with 'encoder: style', "
                "'condition: embedding' and 'norm: {statistics: instance, modulation: hyper}'"
            )
        self.shown = WholeImage.read(file, self.white).pixels
        return style_of_image(self.model, self.made.tensor(self.shown))

    def _check_words(self, asked: str) -> None:
        """Refuse what is meant as something else than words."""
        if asked.casefold() in [name.casefold() for name in self.names]:
            raise ConditionError(f"--to: {unknown('domain', asked, self.names)}")
        if Path(asked).suffix.lower() in SUFFIXES:
            raise ConditionError(
                f"--to: {asked} is an image, and this run gives the styles of words and domains; "
                "those of images need one trained with 'encoder: style'"
            )


class _Restorer:
    """The network of a run that restores images, and what they go through."""

    def __init__(self, stored: StoredModel, options: RestoreOptions) -> None:
        check_task(stored, "restoration", "medical/super_resolution")
        files = FileModel(stored)
        self.model: Any = files.model
        names: Sequence[str] = self.model.domain_names
        if options.domain is not None and options.domain not in names:
            raise ConditionError(f"--domain: {unknown('domain', options.domain, names)}")
        asks = len(names) > 1 and reads_domains(stored.recipe.norm) and any(self.model.norms())
        if options.domain is None and asks and self.model.unseen == "error":
            raise ConditionError(
                "--domain: missing, and the norms of this model look at the domain; expected one "
                f"of {', '.join(names)}"
            )
        self.domain = options.domain if options.domain is not None or asks else names[0]
        self.scale = 1 if options.size == "same" else _scale_of(stored)
        self.tile, self.cut = options.tile, False
        made = files.preprocessing
        self.mean, self.std = (torch.tensor(one)[:, None, None] for one in (made.mean, made.std))

    @torch.inference_mode()
    def change(self, image: WholeImage) -> WholeImage:
        """An image as it is restored."""
        grey = len(self.mean) == 1
        pixels = image.pixels
        if grey:
            pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
        seen = torch.from_numpy(pixels).movedim(2, 0).float() / 255
        size = [self.scale * side for side in seen.shape[1:]]
        seen = bicubic(seen, size).clamp(0, 1) if self.scale > 1 else seen
        given = ((seen - self.mean) / self.std)[None]
        self.cut |= self.tile is not None and max(size) > self.tile
        (restored,) = in_tiles(self.model, given, self.tile, {"domain": self.domain})
        change: NDArray[np.float32] = (255 * (restored - seen)).movedim(0, 2).numpy()
        if image.grey and not grey:
            change = np.asarray(cv2.cvtColor(change, cv2.COLOR_RGB2GRAY), np.float32)[..., None]
        return image.changed(change, self.scale)


def _scale_of(stored: StoredModel) -> int:
    """By how much images were enlarged in training.

    Raises:
        DataError: By several numbers.
    """
    if stored.recipe.data.degrade is not None:
        return int(stored.recipe.data.degrade.get("scale", 1))
    scales = {int(part.options.get("scale", 1)) for part in parts_of(stored.recipe.dataset)}
    if len(scales) > 1:
        raise DataError(
            f"data.parts: the run was trained on pairs of scales {', '.join(map(str, scales))}; "
            "enlarge the images yourself, bicubic, and add --size same"
        )
    return scales.pop()
