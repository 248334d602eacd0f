"""What datasets in official layouts share: listings, masks of grey values, missing splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainnorm.data.dataset import Record
from domainnorm.data.refusals import is_collecting
from domainnorm.data.splits import check_fraction, cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError


def list_files(folder: Path, *suffixes: str, layout: str) -> list[Path]:
    """Files of one folder with one of the suffixes (lower case), sorted by name.

    Raises:
        DataError: The folder is missing or holds no such file; ``layout`` says what was expected.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; expected below data.root: {layout} (docs/data_medical.md)"
        )
    # Files that start with a dot are remains of archives made on a Mac (._image.png).
    files = sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in suffixes and entry.name[0] != "." and entry.is_file()
    )
    if not files:
        raise DataError(
            f"{folder}: no {' or '.join(suffixes)} files; expected below data.root: {layout} "
            "(docs/data_medical.md)"
        )
    return files


def require_file(file: Path, image: Path) -> Path:
    """``file``, which belongs to ``image``.

    Raises:
        DataError: It does not exist.
    """
    if not file.is_file() and not is_collecting():
        raise DataError(
            f"{file}: missing, but {image} is there; unpack the archive of labels as well, or "
            "remove the image (docs/data_medical.md)"
        )
    return file


def read_grey(file: Path) -> NDArray[np.uint8]:
    """Grey values of a file of labels in any number of channels or bits: (H, W), 0 to 255.

    Unlike `decode.read_mask`, which takes stored numbers for classes, a palette is looked up
    and colours are weighted: official masks are drawings in black, grey and white.

    Raises:
        DataError: The file is missing, truncated or no image; the message names it.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{file}: not a readable mask ({reason}); replace the file") from error


def draw_validation(
    records: Sequence[Record], fraction: float, seed: int, *, stratum: str = ""
) -> list[Record]:
    """Move whole groups from ``train`` to ``val``, unless a domain has a validation split.

    Args:
        records: Images of all domains.
        fraction: Share of the training images to move, in (0, 1).
        seed: Seed of the draw.
        stratum: Name of the metadata whose values are drawn from evenly; the class when empty.

    Raises:
        DataError: The fraction is out of range.
    """
    check_fraction("data.val_fraction", fraction)
    given = {record.domain for record in records if record.split == "val"}
    lacking = [record for record in records if record.domain not in given]
    drawn = cut(_rows(lacking, stratum), "val", fraction, seed)
    return _with_splits(records, drawn)


def draw_test(
    records: Sequence[Record], fraction: float, seed: int, *, stratum: str = ""
) -> list[Record]:
    """Move whole groups from ``train`` to ``test``; the counterpart of `draw_validation`.

    Raises:
        DataError: The fraction is out of range.
    """
    check_fraction("data.test_fraction", fraction)
    given = {record.domain for record in records if record.split == "test"}
    lacking = [record for record in records if record.domain not in given]
    drawn = cut(_rows(lacking, stratum), "test", fraction, seed)
    return _with_splits(records, drawn)


def _rows(records: Sequence[Record], stratum: str) -> list[Row]:
    return [
        Row(
            record.file,
            record.domain,
            record.metadata[stratum] if stratum else str(record.target),
            record.group,
            record.split,
        )
        for record in records
    ]


def _with_splits(records: Sequence[Record], rows: Sequence[Row]) -> list[Record]:
    splits = {row.file: row.split for row in rows}
    return [replace(record, split=splits.get(record.file, record.split)) for record in records]
