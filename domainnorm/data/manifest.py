"""Manifests: any CSV or Parquet table with one line for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from domainnorm.data.folders import Cuts
from domainnorm.data.splits import check_groups
from domainnorm.data.table import (
    Row,
    check_meant,
    checked_row,
    read_lines,
    sorted_once,
    write_lines,
)
from domainnorm.errors import DataError, unknown

NAMES = ("path", "target", "domain", "split", "group")
_OPTIONAL = ("target", "split", "group")


@dataclass(frozen=True)
class Manifest:
    """Reads a table and gives its rows their splits.

    Args:
        table: A file whose name ends with ``.csv``, ``.tsv`` or ``.parquet``.
        columns: Names of the columns, where they are not path, target, domain, split, group;
            target, split and group may be absent.
        cuts: How splits that are not given are drawn.
        classes: Whether targets are classes, each of which is drawn from.
    """

    table: Path
    columns: Mapping[str, str]
    cuts: Cuts
    classes: bool = True
    names: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in NAMES:
                raise DataError(f"data.columns: {unknown('column', name, NAMES)}")
        object.__setattr__(self, "names", {name: self.columns.get(name, name) for name in NAMES})

    def rows(self) -> list[Row]:
        """Rows sorted by file; further columns are their metadata.

        Raises:
            DataError: The table or a column is missing, a line is wrong, or a group is torn
                apart; the message names the table and the line.
        """
        return self.rows_of(read_lines(self.table))

    def rows_of(self, lines: Sequence[Mapping[str, str]]) -> list[Row]:
        """`rows` of lines that were read already.

        Raises:
            DataError: A column is missing, a line is wrong, or a group is torn apart.
        """
        self._check_columns(lines[0])
        given = any(line.get(self.names["split"]) for line in lines)
        read = (self._row(number, line, given) for number, line in enumerate(lines, 1))
        rows = sorted_once((row for row in read if row is not None), self.table)
        return self._drawn(rows, given=given)

    def _drawn(self, rows: Sequence[Row], *, given: bool) -> list[Row]:
        """The rows with the splits that the table does not give."""
        if given:
            check_groups(rows, str(self.table))
        drawn = [row if self.classes else replace(row, label="") for row in rows]
        drawn = self.cuts.validated(drawn) if given else self.cuts.drawn(drawn)
        return [replace(row, split=one.split) for row, one in zip(rows, drawn, strict=True)]

    def _check_columns(self, line: Mapping[str, str]) -> None:
        for name, column in self.names.items():
            required = name not in _OPTIONAL or name in self.columns
            if required and column not in line:
                raise DataError(
                    f"{self.table}: {unknown('column', column, line)}; name the column of "
                    f"'{name}' with data.columns: {{{name}: ...}}"
                )
        own = {name: self.names[name] for name in ("split", "group")}
        way = "name it with data.columns: {{{meaning}: {column}}}, else rename it"
        check_meant(self.table, list(line), own, way)

    def _row(self, number: int, line: Mapping[str, str], given: bool) -> Row | None:
        file, target, domain, split, group = (line.get(self.names[name], "") for name in NAMES)
        known = set(self.names.values())
        metadata = {key: value for key, value in line.items() if key not in known}
        chosen: Any = split if given else "train"
        row = Row(file, domain, target, group, chosen, metadata)
        return checked_row(f"{self.table}, row {number}", row, "path")


def write_manifest(table: Path, rows: Sequence[Row]) -> None:
    """Write rows as a CSV table; their metadata become further columns."""
    known = ((row.file, row.label, row.domain, row.split, row.group) for row in rows)
    lines = [dict(zip(NAMES, cells, strict=True)) for cells in known]
    write_lines(table, [{**line, **row.metadata} for line, row in zip(lines, rows, strict=True)])
