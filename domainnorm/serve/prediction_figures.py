"""Figures of predictions: images by their classes, or masks over images."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from domainnorm.data.dataset import distinct_colours
from domainnorm.report import Overlay, save_contact_sheet, save_overlays
from domainnorm.serve.file_model import FileModel, Said
from domainnorm.serve.given_domains import GivenDomain
from domainnorm.serve.images.image_sources import ImageSource

_ROWS, _IMAGES = 12, 8  # of the sheet
_OVERLAYS = 6
_NONE = "none"


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
    """Keeps what figures show, some images of all; their pixels are read again at the end.

    Args:
        files: What predicts.
        source: The images.
    """

    def __init__(self, files: FileModel, source: ImageSource) -> None:
        self._files, self._source = files, source
        self._step = max(1, len(source.listed) // _OVERLAYS)
        self._of_class: defaultdict[str, _Spread] = defaultdict(_Spread)
        self._masks: list[tuple[_Shown, Tensor]] = []

    def add(
        self,
        number: int,
        said: Said,
        given: GivenDomain,
        output: Tensor,
    ) -> None:
        """Keep an image if it will be shown.

        Args:
            number: Its place in the list.
            said: What the model says of it.
            given: What it was predicted under.
            output: (K,) or (K, H, W).
        """
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
        fitted = self._files.preprocessing.fitted
        images = {
            name: [fitted(self._source.pixels(shown.number)) for shown in row]
            for name, row in rows.items()
        }
        captions = {name: [shown.caption for shown in row] for name, row in rows.items()}
        save_contact_sheet(images, path, title, captions)

    def save_overlays(self, path: Path, title: str) -> None:
        """Draw masks over images, at the size of the input."""
        names, fitted = self._files.task.class_names, self._files.preprocessing.fitted
        rows = [
            Overlay(
                fitted(self._source.pixels(shown.number)),
                None,
                {"prediction": mask.numpy().astype(np.uint8)},
                shown.caption,
            )
            for shown, mask in self._masks
        ]
        if rows:
            save_overlays(rows, path, names, distinct_colours(len(names)), title)
