"""The split table of a folder: a CSV file with the columns file, domain, class, group, split."""

from __future__ import annotations

import csv
import itertools
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from domainnorm.data.dataset import Split
from domainnorm.data.delimited import read_delimited
from domainnorm.data.problems import refuse
from domainnorm.errors import DataError, nearest

COLUMNS = ("file", "domain", "class", "group", "split")


@dataclass(frozen=True)
class Row:
    """One line of a split table.

    Args:
        file: Path relative to the root of the data, with forward slashes, as `normal_path`.
        domain: Name of the domain.
        label: Name of the class; empty for an image without a label.
        group: Name of the group; the file when the column is empty.
        split: The split it belongs to.
        metadata: What else is known about it.
    """

    file: str
    domain: str
    label: str
    group: str
    split: Split
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)


def read_table(file: Path) -> list[Row]:
    """Read a split table.

    Returns:
        Rows sorted by file.

    Raises:
        DataError: The table is empty or not UTF-8 text, a column is missing or there twice, a row
            has too many or too few cells, is there twice or has an unknown split; the message
            names the table and the line.
    """
    columns, lines = read_delimited(file)
    _check_columns(file, columns)
    read = [_row(f"{file}, line {number}", entry) for number, entry in lines]
    rows = [row for row in read if row is not None]
    if not rows:
        raise DataError(
            f"{file}: no rows; list the images, or delete the file to get seeded splits"
        )
    rows.sort(key=lambda row: row.file)
    for first, second in itertools.pairwise(rows):
        if first.file == second.file:
            refuse(f"{file}: '{first.file}' is listed more than once; keep one row")
    return rows


def normal_path(file: str) -> str:
    """One spelling of a path: ``a/b`` for ``./a//b`` and ``a/c/../b``; links are not followed."""
    return posixpath.normpath(file) if file else file


def _check_columns(file: Path, names: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(
            f"{file}: column {', '.join(missing)} missing; the first line must be "
            f"{','.join(COLUMNS)}, got {','.join(names) or 'nothing'}"
        )


def _row(where: str, entry: dict[str, str]) -> Row | None:
    file, domain, label, group, split = (entry[name].strip() for name in COLUMNS)
    if not file or not domain:
        refuse(f"{where}: file '{file}' and domain '{domain}'; neither may be empty")
        return None
    file = normal_path(file)
    for known in get_args(Split):
        if split == known:
            return Row(file, domain, label, group or file, known)
    match = nearest(split, get_args(Split))
    hint = f"; did you mean '{match}'?" if match else ""
    refuse(f"{where}: split '{split}', expected train, val or test{hint}")
    return None


def write_table(file: Path, rows: Iterable[Row]) -> None:
    """Write a split table."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows((row.file, row.domain, row.label, row.group, row.split) for row in rows)
