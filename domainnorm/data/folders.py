"""What datasets of one folder per domain share: listings, a table of splits, drawn splits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domainnorm.data.images import SUFFIXES, files_below
from domainnorm.data.refusals import LeftOut, is_collecting
from domainnorm.data.splits import check_fraction, check_groups, cut, cut_ends
from domainnorm.data.table import Row, read_table
from domainnorm.errors import DataError

DEFAULT_TABLE = "splits.csv"


@dataclass(frozen=True)
class Cuts:
    """How splits that are not given are drawn.

    Args:
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on when there is no table, in (0, 1).
        seed: Seed of the draws.
        groups: ``whole`` keeps groups in one split; ``sequences`` takes them for films, which
            may be cut in time.

    Raises:
        DataError: A fraction out of range.
    """

    val_fraction: float
    test_fraction: float
    seed: int
    groups: Literal["whole", "sequences"] = "whole"

    def __post_init__(self) -> None:
        check_fraction("data.val_fraction", self.val_fraction)
        check_fraction("data.test_fraction", self.test_fraction)

    def drawn(self, rows: Sequence[Row]) -> list[Row]:
        """Test and validation splits of rows that are all for training.

        Raises:
            DataError: Sequences, which only a table can name.
        """
        if self.groups == "sequences":
            raise DataError(
                "data.groups: 'sequences' needs a table that names the sequence of each image, and "
                f"its split (columns group and split of {DEFAULT_TABLE}); write one, or leave the "
                "key out"
            )
        return self.validated(cut(rows, "test", self.test_fraction, self.seed))

    def tabled(self, table: Path) -> list[Row]:
        """The rows of a table, with the splits drawn that it lacks.

        Raises:
            DataError: The table cannot be read, or tears a group or a sequence apart.
        """
        rows, has_splits = read_table(table)
        if not has_splits:
            return self.drawn(rows)
        if self.groups == "sequences":
            return cut_ends(rows, self.val_fraction, str(table))
        check_groups(rows, str(table))
        return self.validated(rows)

    def validated(self, rows: list[Row]) -> list[Row]:
        """The rows with a validation split cut out when they have none."""
        if any(row.split == "val" for row in rows):
            return rows
        return cut(rows, "val", self.val_fraction, self.seed)


def find_table(root: Path, name: str) -> Path | None:
    """The table of splits in the folder of the data, or None when there is none to use.

    The one of the default name may be absent, and an empty name means none.

    Raises:
        DataError: A table was asked for by another name and does not exist.
    """
    table = root / name
    if not name or (name == DEFAULT_TABLE and not table.is_file()):
        return None
    if not table.is_file():
        raise DataError(f"data.splits: {table} does not exist; leave the key out for drawn splits")
    return table


def list_folders(folder: Path) -> list[str]:
    """Names of the folders inside one, sorted; none when it does not exist."""
    # Hidden folders belong to tools (.git, .ipynb_checkpoints), not to the data.
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")


def list_images(folder: Path, left_out: LeftOut | None = None, root: Path = Path()) -> list[str]:
    """Paths of the image files anywhere below a folder, sorted; none when it does not exist.

    Links to files that do not exist are among them, for `check_listed` to name.

    Args:
        folder: Searched; hidden files and folders are not.
        left_out: Told of files of other kinds, by their paths below ``root``.
        root: Folder of the data.
    """
    found = []
    above = tuple(place.resolve() for place in folder.parents if place.is_relative_to(root))
    for file in sorted(files_below(folder, above)) if folder.is_dir() else ():
        if file.suffix.lower() in SUFFIXES:
            found.append(file.relative_to(folder).as_posix())
        elif left_out is not None:
            kind = f"no image by its suffix, {file.suffix or 'none'}"
            left_out.add(kind, file.relative_to(root).as_posix())
    return found


def images_in(folder: Path) -> list[str]:
    """Names of the image files right in a folder, sorted, as `list_images`."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        entry.name
        for entry in entries
        if entry.suffix.lower() in SUFFIXES
        and entry.name[0] != "."
        and (entry.is_file() or not entry.exists())
    )


def tell_loose(folder: Path, left_out: LeftOut, root: Path, place: str) -> None:
    """Tell of images right in a folder, where they should be in one of its folders: ``place``."""
    for name in images_in(folder):
        left_out.add(f"image outside of {place}", (folder / name).relative_to(root).as_posix())


def missing_files(root: Path, files: Iterable[str]) -> list[str]:
    """Those of many files that do not exist; asks each folder once instead of every file."""
    folders: dict[Path, set[str]] = {}
    missing = []
    for file in files:
        path = root / file
        if path.parent not in folders:
            entries = os.scandir(path.parent) if path.parent.is_dir() else ()
            # The name of a link says nothing of the file it leads to.
            folders[path.parent] = {
                entry.name for entry in entries if not entry.is_symlink() or Path(entry).exists()
            }
        if path.name not in folders[path.parent]:
            missing.append(file)
    return missing


def check_listed(root: Path, files: Iterable[str], table: Path | None) -> None:
    """Raise a DataError for a listed file, or one that a link leads to, that does not exist."""
    missing = [] if is_collecting() else missing_files(root, files)
    if missing and table:
        raise DataError(
            f"{table}: '{missing[0]}' is listed but {root / missing[0]} does not exist; restore "
            "the file or remove its row"
        )
    if missing:
        raise DataError(
            f"{root / missing[0]}: a link to a file that does not exist; restore that file, or "
            "remove the link"
        )
