"""Masks of users: numbers or colours of classes, and ``classes.txt`` that names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import VOID, FileDataset, distinct_colours
from domainnorm.data.images import mask_numbers, places_of_colours, read_labels, read_size
from domainnorm.errors import DataError, counted

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Classes:
    """What ``classes.txt`` says.

    Args:
        file: The file itself.
        names: Names of the K classes.
        colours: A colour for each; one of its own hue where the file gives none.
        void: Colours of pixels without a class.
        coloured: Whether the file gives every class a colour, no two the same.
    """

    file: Path
    names: list[str]
    colours: list[Colour]
    void: list[Colour]
    coloured: bool

    @property
    def grey(self) -> bool:
        """Whether all listed colours are grey, so that a mask of one channel holds colours, too."""
        return self.coloured and all(len({*rgb}) == 1 for rgb in [*self.colours, *self.void])

    def numbers(self, pixels: NDArray[np.uint8], mask: Path) -> NDArray[np.uint8]:
        """Classes (H, W) of colours (H, W, 3 or 4), 255 for void ones.

        Raises:
            DataError: A pixel has a colour that is not listed; names the mask.
        """
        places = places_of_colours(pixels[..., :3], [*self.colours, *self.void])
        strange = places < 0
        if strange.any():
            row, column = np.argwhere(strange)[0]
            colour = ",".join(map(str, pixels[row, column, :3]))
            raise DataError(
                f"{mask}: {counted(int(strange.sum()), 'pixel')} of colours that "
                f"{self.file.name} does not list, such as {colour} in row {row}, column {column}; "
                f"add a line 'name,{colour}', or ',{colour}' for pixels without a class (files "
                "with losses, such as JPEG, have no exact colours: convert the masks again)"
            )
        return np.where(places < len(self.names), places, VOID).astype(np.uint8)

    def of_palette(
        self, values: NDArray[np.uint8], palette: NDArray[np.uint8], mask: Path
    ) -> NDArray[np.uint8]:
        """Classes (H, W) of positions in a palette: by their colours, if all are listed.

        Else by the positions, as where colours are for figures alone.

        Raises:
            DataError: Some colours are listed, and with other positions; names the mask.
        """
        used = np.unique(values)
        places = places_of_colours(palette[used][None], [*self.colours, *self.void])[0]
        if (places >= 0).all():
            return self.numbers(palette[values], mask)
        wrong = (places >= 0) & (places < len(self.names)) & (places != used)
        if wrong.any():
            number = int(used[wrong][0])
            colour = ",".join(map(str, palette[number]))
            raise DataError(
                f"{mask}: a palette in which {self.file.name} lists some colours and not others, "
                f"and number {number} has the colour {colour} of another class; list all colours, "
                "or write masks without a palette"
            )
        return values


class MaskFiles(FileDataset):
    """Images with files of class numbers or colours, the classes of which the user names."""

    _classes: Classes

    @property
    def class_colours(self) -> list[Colour]:
        """An RGB colour for each class: that of ``classes.txt``, or one of its own hue."""
        return self._classes.colours

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """Classes of a mask file's pixels, from their numbers or colours: (H, W).

        Raises:
            DataError: It cannot be read, or a colour is that of no class; the message names it.
        """
        values, palette = read_labels(file)
        known = self._classes
        if not known.coloured:
            return mask_numbers(values, file)
        if palette is not None:
            return known.of_palette(values, palette, file)
        if values.ndim == 3 and values.shape[2] > 2:
            return known.numbers(values, file)
        if known.grey:
            return known.numbers(mask_numbers(values, file)[..., None].repeat(3, 2), file)
        return mask_numbers(values, file)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), ``0 .. K - 1`` or 255 where there is none.

        Raises:
            DataError: The record has no mask, its file cannot be read, is of another size than
                the image, or holds a number that is no class; the message names the file.
        """
        mask = super().mask(index)
        self._check_size(str(self.records[index].mask), mask, self.records[index].file)
        return mask

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """The file of the image; or that of the mask, and what names its classes."""
        own = super().sources(index, is_mask=is_mask)
        return [*own, self._classes.file] if is_mask else own

    def _check_size(self, name: str, values: NDArray[np.uint8], image: str) -> None:
        height, width = read_size(self.root / image)
        if values.shape != (height, width):
            raise DataError(
                f"{self.root / name}: {values.shape[1]} × {values.shape[0]} pixels, but its image "
                f"{self.root / image} has {width} × {height}; make them of one size"
            )


def read_classes(file: Path) -> Classes:
    """Names and colours; colours of their own hue where the file gives none.

    Raises:
        DataError: The file is missing, or a line is no ``name``, ``name,R,G,B`` or ``,R,G,B``; the
            message says what to write.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: cannot be read ({_reason(error)}); write one class per line, the first "
            "for the value 0 of masks: 'road', or 'road,128,64,128' with its colour"
        ) from error
    entries = [_entry(f"{file}, line {number}", line) for number, line in enumerate(lines, 1)]
    void = [colour for name, colour in entries if not name and colour is not None]
    entries = entries[: len(entries) - len(void)]
    names = [name for name, _ in entries]
    if "" in names:
        raise DataError(
            f"{file}, line {names.index('') + 1}: no name; lines are counted, so write one for "
            "every value, and colours without a class at the end"
        )
    for number, name in enumerate(names, 1):
        if name in names[: number - 1]:
            raise DataError(f"{file}, line {number}: class '{name}' is there twice; rename one")
    if not 2 <= len(names) <= VOID:
        raise DataError(f"{file}: {len(names)} classes, expected 2 to {VOID}; one name per line")
    given = [colour for _, colour in entries]
    hues = distinct_colours(len(names))
    colours = [own or hue for own, hue in zip(given, hues, strict=True)]
    coloured = None not in given and len({*given, *void}) == len(given) + len(void)
    return Classes(file, names, colours, void, coloured)


def _entry(where: str, line: str) -> tuple[str, Colour | None]:
    name, *numbers = (part.strip() for part in line.split(","))
    if not numbers:
        return name, None
    values = [int(text) for text in numbers if text.isdecimal() and int(text) <= 255]
    if len(numbers) != 3 or len(values) != 3:
        raise DataError(f"{where}: '{line}', expected 'name' or 'name,R,G,B' with 0 to 255")
    red, green, blue = values
    return name, (red, green, blue)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
