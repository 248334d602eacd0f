"""CSV and TSV tables as text: a header, and lines with one cell for each of its columns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from domainnorm.data.problems import refuse
from domainnorm.errors import DataError, counted


def read_delimited(
    file: Path, delimiter: str = ","
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns of a table, and its lines with their numbers in the file; empty ones are left out.

    Raises:
        DataError: The table is not UTF-8 text, has a column twice, or a line has not one cell for
            each column; the message names the table and the line.
    """
    try:
        # A table saved by a spreadsheet starts with a byte order mark, hence utf-8-sig.
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            filled = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as a UTF-8 table: {error}") from error
    (_, columns), *lines = filled or [(0, [])]
    _check_columns(file, columns)
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


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    # Spreadsheets write several columns without a name, which hold nothing.
    for position, name in enumerate(columns):
        if name and name in columns[:position]:
            raise DataError(f"{file}: column '{name}' is there twice; rename one, or leave it out")
