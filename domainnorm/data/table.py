"""Tables as text: CSV, TSV and Parquet, and the split table of a folder.

A split table is a CSV file with the columns file, domain and, as far as known, class, group, split.
"""

from __future__ import annotations

import csv
import itertools
import math
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_args

from domainnorm.data.dataset import Split
from domainnorm.data.refusals import reading, refuse
from domainnorm.errors import DataError, counted, nearest
from domainnorm.storage import whole_file

COLUMNS = ("file", "domain", "class", "group", "split")
_REQUIRED = COLUMNS[:2]
# What others call optional columns, in lower case, without spaces and underscores.
_PATIENTS = ("patient", "subject", "case", "slide", "scene", "study", "participant", "person")
USUAL = {
    "class": ("label", "target", "diagnosis", "category"),
    "group": tuple(f"{one}{end}" for one in _PATIENTS for end in ("", "id", "no", "number")),
    "split": ("subset", "set", "fold", "phase", "partition"),
}
_SPELT = {"validation": "val", "valid": "val"}  # what other tools call the second split


@dataclass(frozen=True)
class Row:
    """One line of a split table."""

    file: str  # relative to the root of the data, as `normal_path`
    domain: str
    label: str  # class; empty for an image without one
    group: str  # the file when the column is empty
    split: Split
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)


class Table(NamedTuple):
    """What a split table says."""

    rows: list[Row]  # sorted by file
    has_splits: bool  # whether it gives any; all are ``train`` otherwise


def read_table(file: Path) -> Table:
    """Read a split table.

    Raises:
        DataError: The table is empty or not UTF-8 text, a column is missing, misspelt or there
            twice, a row has too many or too few cells, is there twice or has an unknown split; the
            message names the table and the line.
    """
    columns, lines = read_delimited(file)
    _check_columns(file, columns)
    cells = [
        (number, {name: line.get(name, "").strip() for name in COLUMNS}) for number, line in lines
    ]
    has_splits = any(line["split"] for _, line in cells)
    if not has_splits:
        cells = [(number, {**line, "split": "train"}) for number, line in cells]
    read = [
        checked_row(f"{file}, line {number}", Row(*line.values()))  # type: ignore[arg-type]
        for number, line in cells
    ]
    rows = [row for row in read if row is not None]
    if not rows:
        raise DataError(
            f"{file}: no rows; list the images, or delete the file to get seeded splits"
        )
    return Table(sorted_once(rows, file), has_splits)


def checked_row(where: str, row: Row, name: str = "file") -> Row | None:
    """A row as a table has it, with one spelling of its path and a group; refused if it is wrong.

    Messages say ``where``, the table and line, and the ``name`` of the column of files.
    """
    if not row.file or not row.domain:
        refuse(f"{where}: {name} '{row.file}' and domain '{row.domain}'; neither may be empty")
        return None
    row = replace(row, split=_SPELT.get(row.split, row.split))  # type: ignore[arg-type]
    if row.split not in get_args(Split):
        match = nearest(row.split, get_args(Split))
        hint = f"; did you mean '{match}'?" if match else ""
        if not row.split:
            hint = "; other rows have a split: give one to each row, or to none to draw all splits"
        refuse(f"{where}: split '{row.split}', expected train, val or test{hint}")
        return None
    file = normal_path(row.file)
    return replace(row, file=file, group=row.group or file)


def sorted_once(rows: Iterable[Row], table: Path) -> list[Row]:
    """Rows sorted by file; a file that is there twice is refused."""
    found = sorted(rows, key=lambda row: row.file)
    for first, second in itertools.pairwise(found):
        if first.file == second.file:
            refuse(f"{table}: '{first.file}' is listed more than once; keep one row")
    return found


def normal_path(file: str) -> str:
    """One spelling of a path: ``a/b`` for ``./a//b`` and ``a/c/../b``; links are not followed."""
    return posixpath.normpath(file) if file else file


def _check_columns(file: Path, names: Sequence[str]) -> None:
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise DataError(
            f"{file}: column {', '.join(missing)} missing; the first line must be "
            f"{','.join(COLUMNS)} (the last three are optional), got {','.join(names) or 'nothing'}"
        )
    check_meant(file, names, {name: name for name in COLUMNS[2:]})


def plain(name: str) -> str:
    """A column's name in lower case, without spaces, hyphens and underscores."""
    return "".join(sign for sign in name.lower() if sign not in " -_")


def check_meant(
    file: Path,
    names: Sequence[str],
    optional: Mapping[str, str],
    way: str = "call it '{meaning}', else call it something else",
) -> None:
    """Refuse columns that seem to be an optional one by another name, which would go unread.

    Args:
        file: The table.
        names: Its columns.
        optional: What optional columns are called, by what they mean.
        way: What to do if that is meant, with places for the ``meaning`` and the ``column``.
    """
    others = [name for name in names if name not in optional.values()]
    for meaning, column in optional.items():
        alike = get_close_matches(column, [plain(name) for name in others], n=1, cutoff=0.8)
        alike += USUAL.get(meaning, ())
        meant = next((name for name in others if plain(name) in alike), None)
        if column not in names and meant is not None:
            raise DataError(
                f"{file}: column '{meant}' is not read, and there is no column '{column}'; if both "
                f"mean the same, {way.format(meaning=meaning, column=meant)}"
            )


def write_table(file: Path, rows: Iterable[Row]) -> None:
    """Write a split table."""
    lines = ((row.file, row.domain, row.label, row.group, row.split) for row in rows)
    write_lines(file, [dict(zip(COLUMNS, line, strict=True)) for line in lines])


def read_delimited(
    file: Path, delimiter: str = ","
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns of a table, and its lines with their numbers in the file; empty ones are left out.

    Raises:
        DataError: The table is not UTF-8 text, has a column twice, or a line has not one cell for
            each column; the message names the table and the line.
    """
    # A table saved by a spreadsheet starts with a byte order mark, hence utf-8-sig.
    with (
        reading(file, "UTF-8 table", "save it as one"),
        file.open(newline="", encoding="utf-8-sig") as stream,
    ):
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        filled = [(reader.line_num, cells) for cells in reader if cells]
        if any("\0" in cell for _, cells in filled for cell in cells):
            raise ValueError("a cell holds the character NUL")
    (_, columns), *lines = filled or [(0, [])]
    if len(columns) == 1 and ";" in columns[0]:
        raise DataError(f"{file}: separated by semicolons; save it with commas")
    _check_unique(file, columns)
    mark = "tab" if delimiter == "\t" else "comma"
    uneven = [
        f"{file}, line {number}: {counted(len(cells), 'cell')}, the header has {len(columns)}; "
        + (
            f"quote a cell that holds a {mark}"
            if len(cells) > len(columns)
            else f"write a {mark} for each empty cell, too"
        )
        for number, cells in lines
        if len(cells) != len(columns)
    ]
    if uneven:
        for message in uneven[:-1]:
            refuse(message)
        raise DataError(uneven[-1])
    return columns, [(number, dict(zip(columns, cells, strict=True))) for number, cells in lines]


def _check_unique(file: Path, columns: Sequence[str]) -> None:
    # Spreadsheets write several columns without a name, which hold nothing.
    for position, name in enumerate(columns):
        if name and name in columns[:position]:
            raise DataError(f"{file}: column '{name}' is there twice; rename one, or leave it out")


def read_lines(table: Path) -> list[dict[str, str]]:
    """All lines of a table as text, an empty one for what is missing.

    Raises:
        DataError: The file is missing, damaged, empty or of another kind, has a column twice, or a
            line has not one cell for each column.
    """
    readers = {".csv": _delimited, ".tsv": _delimited, ".parquet": _parquet}
    reader = readers.get(table.suffix.lower())
    if reader is None:
        endings = ", ".join(readers)
        raise DataError(f"data.table: '{table.name}', expected a name that ends with {endings}")
    if not table.is_file():
        raise DataError(f"data.table: {table} does not exist; docs/data.md says what to write")
    lines = reader(table)
    if not lines:
        raise DataError(f"{table}: no rows; list the images")
    return [{key: _text(value) for key, value in line.items()} for line in lines]


def _delimited(table: Path) -> list[dict[str, str]]:
    _, lines = read_delimited(table, "\t" if table.suffix.lower() == ".tsv" else ",")
    return [line for _, line in lines]


def _parquet(table: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet  # noqa: PLC0415  (an optional library)
    except ImportError as error:
        raise DataError(
            f"{table}: Parquet needs pyarrow; pip install 'domainnorm[data]', or store CSV"
        ) from error
    with reading(table, "Parquet table"):
        # Pages carry checksums where they were written so.
        lines: list[dict[str, Any]] = parquet.read_table(
            table, page_checksum_verification=True
        ).to_pylist()
    return lines


def is_gap(value: Any) -> bool:
    """Whether a stored value is None or NaN, which float columns have for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    if is_gap(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers with gaps is stored as floats
    return str(value).strip()


def write_lines(table: Path, lines: Sequence[Mapping[str, str]]) -> None:
    """Write lines as a CSV table in one step; the columns are those of the first."""
    with whole_file(table) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
