"""Masks of users: files with numbers of classes, and ``classes.txt`` that names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import VOID, distinct_colours
from domainnorm.data.decode import read_size
from domainnorm.data.files import FileDataset
from domainnorm.errors import DataError

Colour = tuple[int, int, int]


class MaskFiles(FileDataset):
    """Images with files of class numbers, the classes of which the user names."""

    _colours: list[Colour]

    @property
    def class_colours(self) -> list[Colour]:
        """An RGB colour for each class: that of ``classes.txt``, or one of its own hue."""
        return self._colours

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), ``0 .. K - 1`` or 255 where there is none.

        Raises:
            DataError: The record has no mask, its file cannot be read, is of another size than
                the image, or holds a number that is no class; the message names the file.
        """
        mask = super().mask(index)
        self._check_size(str(self.records[index].mask), mask, self.records[index].file)
        return mask

    def _check_size(self, name: str, values: NDArray[np.uint8], image: str) -> None:
        height, width = read_size(self.root / image)
        if values.shape != (height, width):
            raise DataError(
                f"{self.root / name}: {values.shape[1]} × {values.shape[0]} pixels, but its image "
                f"{self.root / image} has {width} × {height}; make them of one size"
            )


def read_classes(file: Path) -> tuple[list[str], list[Colour]]:
    """Names and colours; colours of their own hue where the file gives none.

    Raises:
        DataError: The file is missing, or a line is no ``name`` or ``name,R,G,B``; the message
            says what to write.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: cannot be read ({_reason(error)}); write one class per line, the first "
            "for the value 0 of masks: 'road' or 'road,128,64,128' with its colour for figures"
        ) from error
    entries = [_entry(f"{file}, line {number}", line) for number, line in enumerate(lines, 1)]
    names = [name for name, _ in entries]
    for number, name in enumerate(names, 1):
        if name in names[: number - 1]:
            raise DataError(f"{file}, line {number}: class '{name}' is there twice; rename one")
    if not 2 <= len(names) <= VOID:
        raise DataError(f"{file}: {len(names)} classes, expected 2 to {VOID}; one name per line")
    hues = distinct_colours(len(names))
    return names, [given or hue for (_, given), hue in zip(entries, hues, strict=True)]


def _entry(where: str, line: str) -> tuple[str, Colour | None]:
    name, *numbers = (part.strip() for part in line.split(","))
    if not name:
        raise DataError(f"{where}: no name; lines are counted, so write one for every value")
    if not numbers:
        return name, None
    values = [int(text) for text in numbers if text.isdecimal() and int(text) <= 255]
    if len(numbers) != 3 or len(values) != 3:
        raise DataError(f"{where}: '{line}', expected 'name' or 'name,R,G,B' with 0 to 255")
    red, green, blue = values
    return name, (red, green, blue)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
