"""Masks: numbers or colours of classes in files, and ``classes.txt`` of a user that names them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.images import as_stored, opened, upright
from domainnorm.data.refusals import reading
from domainnorm.errors import DataError, counted

Colour = tuple[int, int, int]
VOID = 255  # a pixel that has no class
BINARY = {0, VOID}  # numbers of masks that nobody has numbered for classes
OF_BINARY = (
    "hold only 0 and 255, but 255 is for pixels without a class; write 1 for the second class"
)


def read_mask(file: Path) -> NDArray[np.uint8]:
    """Decode a file of labels to (H, W), 0 to 255: indices of a palette, or grey values as stored.

    Colours that are all grey are grey values; transparency does not count.

    Raises:
        DataError: The file is missing, truncated, no image, in colour, or holds larger numbers.
    """
    return mask_numbers(read_labels(file).values, file)


class Labels(NamedTuple):
    """A file of labels as it is stored."""

    values: NDArray[Any]  # (H, W) of numbers, or (H, W, channels) of any depth
    palette: NDArray[np.uint8] | None = None  # RGB colour of each number (256, 3)


def read_labels(file: Path) -> Labels:
    """Read a file of labels, turned by the orientation that it states, as its image is.

    Raises:
        DataError: The file is missing, truncated, damaged or no image.
    """
    with opened(file, "mask") as image:
        image.load()
        values, palette = upright(np.asarray(image), image), None
        if image.mode == "P":
            colours = image.getpalette("RGB") or []
            palette = np.zeros((256, 3), np.uint8)
            palette.reshape(-1)[: len(colours)] = colours
        if values.ndim == 3:
            # Pillow cuts colours of 16 bits down to 8, which would make every number 0.
            stored = as_stored(file)
            if stored is not None and stored.dtype == np.uint16 and stored.ndim == 3:
                values = upright(stored[..., [2, 1, 0, *range(3, stored.shape[2])]], image)
    return Labels(values, palette)


def mask_numbers(values: NDArray[Any], file: Path) -> NDArray[np.uint8]:
    """The numbers (H, W) of what `read_labels` read from a file.

    Raises:
        DataError: They are colours, or no whole numbers within 0 to 255.
    """
    if values.ndim == 3:
        grey = values[..., :1]
        if (values[..., : 3 if values.shape[2] > 2 else 1] != grey).any():
            raise DataError(
                f"{file}: colours, expected one channel with the number of the class; convert "
                "colours to numbers, or list the colour of each class in classes.txt"
            )
        values = grey[..., 0]
    if values.dtype.kind == "f":
        strange = values[~np.isfinite(values) | (values != np.round(values))]
        if strange.size:
            raise DataError(
                f"{file}: {counted(strange.size, 'pixel')} with values such as {strange[0]:g}, "
                "expected whole numbers of classes; write them as integers (not as shares of 1)"
            )
    if values.size and (values.min() < 0 or values.max() > 255):
        raise DataError(f"{file}: values up to {values.max()}, expected 0 to 255")
    return values.astype(np.uint8)


def places_of_colours(
    pixels: NDArray[np.uint8], colours: Sequence[Sequence[int]]
) -> NDArray[np.int64]:
    """Position in ``colours``, (R, G, B) each, of every pixel of (H, W, 3); -1 where in none."""
    base = np.array([1 << 16, 1 << 8, 1])
    codes, known = pixels.astype(np.int64) @ base, np.array(colours) @ base
    order = np.argsort(known)
    places = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[places] == codes, places, -1)


@dataclass(frozen=True)
class Classes:
    """What ``classes.txt`` says."""

    file: Path
    names: list[str]  # of the K classes
    colours: list[Colour]  # one of its own hue where the file gives none
    void: list[Colour]  # colours of pixels without a class
    coloured: bool  # whether each class has a colour in it, no two the same

    @property
    def _grey(self) -> bool:
        """Whether all listed colours are grey, so that a mask of one channel holds colours, too."""
        return self.coloured and all(len({*rgb}) == 1 for rgb in [*self.colours, *self.void])

    def read(self, file: Path) -> NDArray[np.uint8]:
        """Classes of a mask file's pixels, from their numbers or colours: (H, W).

        Raises:
            DataError: It cannot be read, or a colour is that of no class; the message names it.
        """
        values, palette = read_labels(file)
        if not self.coloured:
            return mask_numbers(values, file)
        if palette is not None:
            return self._of_palette(values, palette, file)
        if values.ndim == 3 and values.shape[2] > 2:
            return self._numbers(values, file)
        numbers = mask_numbers(values, file)
        if self._grey:
            return self._numbers(numbers[..., None].repeat(3, 2), file)
        return numbers

    def _numbers(self, pixels: NDArray[np.uint8], mask: Path) -> NDArray[np.uint8]:
        """Classes (H, W) of colours (H, W, 3 or 4), 255 for void ones."""
        places = places_of_colours(pixels[..., :3], [*self.colours, *self.void])
        places[(pixels[..., :3] > 255).any(-1)] = -1  # of 16 bits
        strange = places < 0
        if strange.any():
            row, column = np.argwhere(strange)[0]
            colour = ",".join(map(str, pixels[row, column, :3]))
            raise DataError(
                f"{mask}: {counted(int(strange.sum()), 'pixel')} of colours that "
                f"{self.file.name} does not list, such as {colour} in row {row}, column {column}; "
                f"add a line 'name,{colour}', or ',{colour}' for pixels without a class (lossy "
                "files such as JPEG change colours: convert the masks again)"
            )
        return np.where(places < len(self.names), places, VOID).astype(np.uint8)

    def _of_palette(
        self, values: NDArray[np.uint8], palette: NDArray[np.uint8], mask: Path
    ) -> NDArray[np.uint8]:
        """Classes (H, W) of positions in a palette: by their colours, if all are listed.

        Else by the positions, as where colours are for figures alone.
        """
        used = np.unique(values)
        places = places_of_colours(palette[used][None], [*self.colours, *self.void])[0]
        if (places >= 0).all():
            return self._numbers(palette[values], mask)
        wrong = (places >= 0) & (places < len(self.names)) & (places != used)
        if wrong.any():
            number = int(used[wrong][0])
            colour = ",".join(map(str, palette[number]))
            raise DataError(
                f"{mask}: {self.file.name} lists only some colours of its palette, and number "
                f"{number} has the colour {colour} of another class; list all colours, or write "
                "masks without a palette"
            )
        return values


def read_classes(file: Path) -> Classes:
    """Names and colours; colours of their own hue where the file gives none.

    Raises:
        DataError: The file is missing, or a line is no ``name``, ``name,R,G,B`` or ``,R,G,B``; the
            message says what to write.
    """
    way = (
        "write one class per line, the first for the value 0 of masks: 'road', or "
        "'road,128,64,128' with its colour"
    )
    with reading(file, "list of classes", way):
        lines = file.read_text(encoding="utf-8-sig").rstrip().split("\n")
    entries = [_entry(f"{file}, line {number}", line) for number, line in enumerate(lines, 1)]
    void = [colour for name, colour in entries if not name and colour is not None]
    entries = entries[: len(entries) - len(void)]
    names = [name for name, _ in entries]
    if "" in names:
        raise DataError(
            f"{file}, line {names.index('') + 1}: no name; the line number is the class number, so "
            "name every class, and list colours without a class at the end"
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
    return name, (values[0], values[1], values[2])


def distinct_colours(count: int) -> list[tuple[int, int, int]]:
    """``count`` RGB colours of different hue, 0 to 255; the first is a dark grey."""
    colours = [(64, 64, 64)]
    for position in range(count - 1):
        # The golden ratio keeps neighbours in the list far apart on the circle of hues.
        red, green, blue = colorsys.hsv_to_rgb(0.618034 * position % 1, 0.75, 0.95)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours[:count]
