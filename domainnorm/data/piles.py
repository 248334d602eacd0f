"""Images whose domains nobody wrote down: a folder, or a table with or without a column of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainnorm.data.dataset import DATA_VARIABLE
from domainnorm.data.folders import Cuts, find_images
from domainnorm.data.images import SUFFIXES
from domainnorm.data.manifest import NAMES, Manifest
from domainnorm.data.table import Row, normal_path, read_lines
from domainnorm.errors import DataError

# As the dataset `manifest` draws them.
_VAL_FRACTION, _TEST_FRACTION = 0.2, 0.3
_IMAGES, _MASKS = "images", "masks"  # as in the dataset `folder_masks`


@dataclass(frozen=True)
class Pile:
    """Images with their splits, and all that is known of them.

    Args:
        root: Folder that paths are relative to, absolute.
        rows: One for each image, sorted by file; their domains say nothing.
        lines: Those of the table to write, in the same order.
        names: What its columns path, target, domain, split and group are called.
    """

    root: Path
    rows: list[Row]
    lines: list[dict[str, str]]
    names: Mapping[str, str]

    def column(self, name: str) -> list[str]:
        """Values of path, target, domain, split or group; empty ones where there are none."""
        return [line.get(self.names[name], "") for line in self.lines]


def open_pile(
    source: str,
    *,
    classes: bool = False,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    ignored: Path | None = None,
) -> Pile:
    """List the images of a folder or of a table; draw splits where none are given.

    Args:
        source: Folder, searched with all folders in it; where there are folders ``images`` and
            ``masks``, files of the first alone are images, and those of the second their targets.
            Or a table as of the dataset ``manifest``, whose paths are relative to its own folder.
            As it is, or else below the folder that DOMAINNORM_DATA names.
        classes: Whether the folder an image lies in is its class; for folders only.
        columns: Names of columns that are called otherwise, for tables only.
        seed: Of drawn splits: 30 % of the images test, 20 % of the others validate.
        ignored: A file that is none of the images.

    Raises:
        DataError: There is no such source, it lists no images, a file's name is not UTF-8, or a
            line is wrong.
    """
    place = _located(source)
    cuts = Cuts(_VAL_FRACTION, _TEST_FRACTION, seed)
    if place.is_dir():
        if columns:
            raise DataError(f"columns: {place} is a folder, which has none; leave the key out")
        return _of_folder(place, classes, cuts, ignored)
    if classes:
        raise DataError(
            f"--classes: {place} is a table, whose column target holds the classes; leave it out"
        )
    return _of_table(place, columns or {}, cuts)


def check_names(files: Iterable[Path]) -> None:
    """Refuse files that no table or log could name.

    Raises:
        DataError: A name that is not UTF-8.
    """
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:
            shown = os.fsencode(file).decode(errors="backslashreplace")
            raise DataError(
                f"{shown}: not a name in UTF-8, which tables and logs are written in; rename it, "
                "as with `convmv -f latin1 -t utf8 --notest`"
            ) from None


def _located(source: str) -> Path:
    place = Path(source)
    below = Path(os.environ.get(DATA_VARIABLE) or "data") / source
    for candidate in (place, below):
        if candidate.exists():
            return candidate.absolute()
    raise DataError(
        f"{source}: neither {place.absolute()} nor {below.absolute()} exists; name a folder of "
        "images, or a table that lists some"
    )


def _of_folder(root: Path, classes: bool, cuts: Cuts, ignored: Path | None) -> Pile:
    files = [file for file in find_images(root) if root / file != ignored]
    check_names([root, *files])
    masks = {file.with_suffix(""): file.as_posix() for file in files if _MASKS in file.parts}
    visible = without_masks(files)
    if not visible:
        suffixes = " ".join(sorted(SUFFIXES))
        raise DataError(f"{root}: no images; expected files with one of the suffixes {suffixes}")
    if classes and any(len(file.parts) == 1 for file in visible):
        raise DataError(
            f"--classes: {root / visible[0]} lies in no folder of a class; expected <class>/<image>"
        )
    drawn = cuts.drawn(
        [
            Row(file.as_posix(), "", file.parent.name if classes else "", file.as_posix(), "train")
            for file in visible
        ]
    )
    rows = sorted(drawn, key=lambda row: row.file)
    targets = [row.label or masks.get(_mask_of(Path(row.file)), "") for row in rows]
    lines = [
        dict(zip(NAMES, (row.file, target, "", row.split, ""), strict=True))
        for row, target in zip(rows, targets, strict=True)
    ]
    return Pile(root, rows, lines, dict(zip(NAMES, NAMES, strict=True)))


def without_masks(files: Sequence[Path]) -> Sequence[Path]:
    """The files in folders ``images`` alone, where others lie in folders ``masks``."""
    inside = [file for file in files if _IMAGES in file.parts]
    return inside if inside and any(_MASKS in file.parts for file in files) else files


def _mask_of(file: Path) -> Path:
    """Where the mask of an image lies, ``a/masks/1`` of ``a/images/1.jpg``, without its suffix."""
    *folders, name = file.with_suffix("").parts
    return Path(*(_MASKS if part == _IMAGES else part for part in folders), name)


def _of_table(table: Path, columns: Mapping[str, str], cuts: Cuts) -> Pile:
    given = [{key: value for key, value in line.items() if key} for line in read_lines(table)]
    target = next(filter(None, (line.get(columns.get("target", "target")) for line in given)), "")
    manifest = Manifest(table, columns, cuts, classes=not (table.parent / target).is_file())
    names = manifest.names
    # One domain for all: those of the table must decide nothing, drawn splits included.
    rows = manifest.rows_of([{**line, names["domain"]: "all"} for line in given])
    by_file = {normal_path(line[names["path"]]): line for line in given}
    new = [{names["domain"]: "", names["split"]: row.split} for row in rows]  # where not given
    lines = [
        {**line, **{name: line.get(name, value) for name, value in more.items()}}
        for line, more in zip((by_file[row.file] for row in rows), new, strict=True)
    ]
    return Pile(table.parent, rows, lines, names)
