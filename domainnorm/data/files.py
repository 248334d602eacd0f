"""Datasets whose images and masks are files below one folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import VOID, DomainDataset
from domainnorm.data.decode import WHITE, read_image, read_mask
from domainnorm.errors import DataError

DATA_VARIABLE = "DOMAINNORM_DATA"


class FileDataset(DomainDataset):
    """Images, and masks where there are some, below ``root``; records hold their paths.

    Attributes:
        root: Folder of the data, absolute.
        white: Value of 16-bit files that is shown as white.
        mask_folders: Folders that are for masks alone.
        mask_lookup: Class of each value of a mask file, (256,) with 255 for none; None when the
            files hold class numbers already.
    """

    root: Path
    white: int = WHITE
    mask_folders: Sequence[Path] = ()
    mask_lookup: NDArray[np.uint8] | None = None

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record: (H, W, 3), RGB, 0 to 255.

        Raises:
            DataError: The file cannot be read or decoded; the message names it.
        """
        return read_image(self.root / self.records[index].file, self.white)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), ``0 .. K - 1`` or 255 where there is none.

        Raises:
            DataError: The record has no mask, its file cannot be read, or it holds a number that
                is no class; the message names the file.
        """
        record = self.records[index]
        if record.mask is None:
            raise DataError(f"{record.file}: no mask is known for this image")
        file = self.root / record.mask
        values = self.read_values(file)
        if self.mask_lookup is not None:
            return self.mask_lookup[values]
        wrong = np.setdiff1d(np.unique(values), [*range(len(self.class_names)), VOID])
        if wrong.size:
            raise DataError(
                f"{file}: values {', '.join(map(str, wrong[:5]))}, expected classes 0 to "
                f"{len(self.class_names) - 1}, or 255 for pixels without one"
            )
        return values

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """The file of the image, or of the mask."""
        record = self.records[index]
        name = record.mask if is_mask else record.file
        if name is None:
            return []
        file = self.root / name
        # ``scan.dcm#3`` is an image within a file.
        return [file if file.is_file() else self.root / name.rpartition("#")[0]]

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """What a mask file holds for each pixel: (H, W), 0 to 255.

        Raises:
            DataError: It cannot be read; the message names it.
        """
        return read_mask(file)


def checked_white(white: int) -> int:
    """``white``, a value that 16 bits hold and 8 do not.

    Raises:
        DataError: It is none.
    """
    if not 255 < white <= WHITE:
        raise DataError(f"data.white: {white}, expected 256 to {WHITE}, such as 4095 for 12 bits")
    return white


def white_of(options: Mapping[str, Any]) -> int | None:
    """``white`` by the options of a dataset; None where its parts have different ones."""
    parts = options.get("parts") or [options]
    found = {int(part.get("white", WHITE)) for part in parts}
    return found.pop() if len(found) == 1 else None


def data_folder() -> Path:
    """The folder that relative roots are in: what DOMAINNORM_DATA names, or ``data``."""
    return Path(os.environ.get(DATA_VARIABLE) or "data")


def resolved_root(root: str) -> Path:
    """The folder that the recipe key ``data.root`` means, absolute.

    Args:
        root: Absolute, or relative to the folder that the environment variable DOMAINNORM_DATA
            names (``data`` when it is not set).

    Raises:
        DataError: It is no folder; the message gives the resolved path and the variable.
    """
    base = os.environ.get(DATA_VARIABLE)
    folder = data_folder() / root
    if not folder.is_dir():
        state = f"is '{base}'" if base else "is not set, so 'data' is used"
        way_out = (
            "docs/data.md says how to get the data, and `domainnorm run RECIPE --sample` tries a "
            "recipe without it"
        )
        if Path(root).is_dir():
            way_out = f"the one in the working directory is {Path(root).absolute()}: write that"
        raise DataError(
            f"data.root: '{root}' resolves to {folder.absolute()}, which is not a folder; the "
            f"environment variable {DATA_VARIABLE} {state}; {way_out}"
        )
    return folder.absolute()
