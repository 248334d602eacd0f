"""The table of predictions, a line for each image, and figures of some of them."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from domainnorm.data.masks import distinct_colours
from domainnorm.errors import DataError
from domainnorm.report import Overlay, save_contact_sheet, save_overlays
from domainnorm.serve.given_domains import GivenDomain
from domainnorm.serve.image_sources import ImageSource
from domainnorm.serve.stored import FileModel, Said

_ROWS, _IMAGES = 12, 8  # of the sheet
_OVERLAYS = 6
_NONE = "none"


@dataclass(frozen=True)
class Predicted:
    """What `predict_run` has left.

    Args:
        folder: Where the files are.
        images: Number of images.
        unreadable: Names of those that could not be read.
        masks: Whether predictions are masks.
        classes: Class -> number of images, or of masks mean share of their pixels.
        domains: Domain -> number of images that were predicted under it.
        by: How these domains were found -> number of images, see `GivenDomain`.
        unlike: Images that are of no known domain; None where the encoder was not asked.
        unused: Columns of a table that nothing reads.
        online: Method that the stage adapted by while it predicted, which this does not; else
            empty.
    """

    folder: Path
    images: int
    unreadable: tuple[str, ...]
    masks: bool
    classes: dict[str, float]
    domains: dict[str, int]
    by: dict[str, int]
    unlike: int | None
    unused: tuple[str, ...] = ()
    online: str = ""


class PredictionTable:
    """Writes ``predictions.csv`` as images come, and counts; of classes, findings or masks."""

    columns = (
        *("image", "prediction", "confidence"),
        *("domain", "domain_by", "domain_weight", "is_known"),
        "problem",
    )

    def __init__(self, file: TextIO, class_names: Sequence[str], *, masks: bool) -> None:
        self.class_names, self.masks = class_names, masks
        self._writer = csv.writer(file, lineterminator="\n")
        of_class = "share" if masks else "probability"
        self._writer.writerow([*self.columns, *(f"{of_class}_{name}" for name in class_names)])
        self.problems: dict[str, str] = {}
        self._classes = dict.fromkeys(class_names, 0.0)
        self._domains: Counter[str] = Counter()
        self._by: Counter[str] = Counter()
        self._known: list[bool] = []
        self._read = 0

    def add_problem(self, name: str, problem: str) -> None:
        """A line for an image that cannot be read."""
        self.problems[name] = problem
        empty = [""] * (len(self.columns) - 2)
        self._writer.writerow([name, *empty, problem, *[""] * len(self.class_names)])

    def add(
        self,
        name: str,
        said: Said,
        given: GivenDomain,
        mask: tuple[str, NDArray[np.uint8]] | None = None,
    ) -> None:
        """A line for an image; a mask comes with its file and its classes (h, w)."""
        prediction, shares = "|".join(said.classes), said.shares
        if mask is not None:
            prediction, shares = mask[0], _shares(mask[1], len(self.class_names))
        self._writer.writerow(
            [
                name,
                prediction,
                f"{said.confidence:.6f}",
                given.domain,
                given.by,
                "" if given.weight is None else f"{given.weight:.6f}",
                "" if given.is_known is None else int(given.is_known),
                "",
                *(f"{share:.6f}" for share in shares),
            ]
        )
        self._count(said, given, shares)

    def _count(self, said: Said, given: GivenDomain, shares: Sequence[float]) -> None:
        self._read += 1
        for name in said.classes:
            self._classes[name] += 1
        if self.masks:
            for name, share in zip(self.class_names, shares, strict=True):
                self._classes[name] += share
        if given.domain:
            self._domains[given.domain] += 1
        if given.by:
            self._by[given.by] += 1
        if given.is_known is not None:
            self._known.append(given.is_known)

    def summary(self, folder: Path, unused: Sequence[str]) -> Predicted:
        """What the lines are in all."""
        divisor = self._read if self.masks else 1
        return Predicted(
            folder,
            self._read + len(self.problems),
            tuple(self.problems),
            self.masks,
            {name: count / divisor for name, count in self._classes.items()},
            dict(self._domains.most_common()),
            dict(self._by),
            self._known.count(False) if self._known else None,
            tuple(unused),
        )


def _shares(mask: NDArray[np.uint8], num_classes: int) -> tuple[float, ...]:
    """Share of each class in the pixels of a mask that have one, (K,)."""
    counts = np.bincount(mask.ravel(), minlength=256)[:num_classes]
    return tuple((counts / max(1, counts.sum())).tolist())


class _Shown(NamedTuple):
    number: int
    caption: str


class _Spread:
    """Some images, evenly over however many come."""

    def __init__(self) -> None:
        self._kept: list[_Shown] = []
        self._step, self._count = 1, 0

    def add(self, shown: _Shown) -> None:
        if self._count % self._step == 0:
            self._kept.append(shown)
        self._count += 1
        if len(self._kept) > 4 * _IMAGES:
            self._kept, self._step = self._kept[::2], 2 * self._step

    def chosen(self) -> list[_Shown]:
        return self._kept[:: max(1, len(self._kept) // _IMAGES)][:_IMAGES]


class PredictionFigures:
    """Keeps what figures show, some images of all; their pixels are read again at the end."""

    def __init__(self, files: FileModel, source: ImageSource) -> None:
        self._files, self._source = files, source
        self._step = max(1, len(source.listed) // _OVERLAYS)
        self._of_class: defaultdict[str, _Spread] = defaultdict(_Spread)
        self._masks: list[tuple[_Shown, Tensor]] = []

    def add(self, number: int, said: Said, given: GivenDomain, output: Tensor) -> None:
        """Keep an image if it will be shown."""
        lines = [given.domain] if given.domain else []
        lines += ["unlike all"] if given.is_known is False else []
        if not self._files.makes_masks:
            probability = dict(zip(self._files.task.class_names, said.shares, strict=True))
            for found in said.classes or (_NONE,):
                sure = f"{probability.get(found, said.confidence):.2f}"
                self._of_class[found].add(_Shown(number, "\n".join([sure, *lines])))
        elif number % self._step == 0 and len(self._masks) < _OVERLAYS:
            shown = _Shown(number, "\n".join([self._source.listed.files[number][0].name, *lines]))
            self._masks.append((shown, output.argmax(0).cpu()))

    def save_classes(self, path: Path, title: str) -> None:
        """Draw images of each class that is predicted, with its probability and their domain."""
        known = (*self._files.task.class_names, _NONE)
        names = [name for name in known if name in self._of_class]
        rows = {name: self._of_class[name].chosen() for name in names[:_ROWS]}
        read = {
            name: [(image, one.caption) for one in row for image in self._fitted(one.number)]
            for name, row in rows.items()
        }
        read = {name: row for name, row in read.items() if row}
        images = {name: [image for image, _ in row] for name, row in read.items()}
        captions = {name: [caption for _, caption in row] for name, row in read.items()}
        if images:
            save_contact_sheet(images, path, title, captions)

    def save_overlays(self, path: Path, title: str) -> None:
        """Draw masks over images, at the size of the input."""
        names = self._files.task.class_names
        rows = [
            Overlay(image, None, {"prediction": mask.numpy().astype(np.uint8)}, shown.caption)
            for shown, mask in self._masks
            for image in self._fitted(shown.number)
        ]
        if rows:
            save_overlays(rows, path, names, distinct_colours(len(names)), title)

    def _fitted(self, number: int) -> list[NDArray[np.uint8]]:
        """The image at the size of the input; none if its file is no longer what it was."""
        try:
            return [self._files.preprocessing.fitted(self._source.pixels(number))]
        except DataError:
            return []
