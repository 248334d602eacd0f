"""Images with several findings each, listed in a CSV or Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    UNLABELLED,
    FileDataset,
    Record,
    checked_white,
    resolved_root,
    select_domains,
)
from domainnorm.data.drawings.folders import styles_of, write_objects
from domainnorm.data.folders import Cuts, check_listed
from domainnorm.data.manifest import Manifest, write_manifest
from domainnorm.data.table import Row
from domainnorm.errors import DataError, unknown
from domainnorm.registry import register

_VALUES = {"1": 1, "0": 0, "": -1, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1, "True": 1, "False": 0}


@register
class ManifestFindings(FileDataset):
    """Images with several findings each, listed in any CSV, TSV or Parquet table.

    Each finding has a column: 1 present, 0 absent, -1 or empty unknown. Other columns are those
    of the dataset ``manifest``, without target.

    Args:
        root: Folder of the data, which paths in the table are relative to.
        table: Name of the table inside ``root``; ``.csv``, ``.tsv`` or ``.parquet``.
        findings: Columns of the findings, in the order of their numbers; when None, every
            further column that holds nothing but 1, 0, -1 and gaps.
        columns: Names of columns that are called otherwise: ``{group: patient_id}``.
        domains: Domains to use, in this order; all of them when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on when there is no split column, in (0, 1).
        split_seed: Seed of drawn splits.
        white: Value of 16-bit files that is shown as white; 4095 where they hold 12 bits.

    Raises:
        DataError: The table, a column or a file is missing, or a line is wrong; the message
            names it.
    """

    task = "multilabel"
    layout = "<table> with path,domain,split,group and a column per finding, and the images"

    def __init__(
        self,
        *,
        root: str,
        table: str = "manifest.csv",
        findings: list[str] | None = None,
        columns: dict[str, str] | None = None,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
        white: int = 65535,
    ) -> None:
        self.root = resolved_root(root)
        self.white = checked_white(white)
        cuts = Cuts(val_fraction, test_fraction, split_seed)
        self.table = self.root / table
        rows = Manifest(self.table, columns or {}, cuts).rows()
        self.class_names = _chosen(findings, rows, self.table)
        self.domain_names = select_domains(DOMAIN_KEYS, domains, sorted({r.domain for r in rows}))
        self.records = [
            Record(
                row.file,
                row.domain,
                UNLABELLED,
                row.group,
                row.split,
                labels=tuple(_value(row, name) for name in self.class_names),
                metadata={
                    key: value for key, value in row.metadata.items() if key not in self.class_names
                },
            )
            for row in rows
            if row.domain in self.domain_names
        ]
        check_listed(self.root, [record.file for record in self.records], self.table)

    @classmethod
    def write_sample(
        cls, root: Path, *, seed: int = 0, domains: Sequence[str] = ("site_a", "site_b")
    ) -> None:
        """Vehicles and people, with what is seen on each picture."""
        kinds = {"bus": (1, 0), "car": (1, 0), "motorcycle": (1, 0), "person": (0, 1)}
        rows = []
        for domain, style in styles_of(domains).items():
            for row in write_objects(root / "images", domain, style, list(kinds), seed):
                vehicle, person = kinds[row.label]
                seen = {"vehicle": vehicle, "person": "" if row.file.endswith("0.jpg") else person}
                found = {name: str(value) for name, value in seen.items()}
                rows.append(replace(row, file=f"images/{row.file}", label="", metadata=found))
        write_manifest(root / "manifest.csv", rows)


def _chosen(findings: Sequence[str] | None, rows: Sequence[Row], table: Path) -> list[str]:
    columns = list(rows[0].metadata)
    if findings is None:
        findings = [name for name in columns if all(row.metadata[name] in _VALUES for row in rows)]
    for name in findings:
        if name not in columns:
            raise DataError(f"data.findings: {unknown('column', name, columns)}")
    if not findings:
        raise DataError(
            f"{table}: no findings; name their columns with data.findings, of {', '.join(columns)}"
        )
    return list(findings)


def _value(row: Row, name: str) -> int:
    text = row.metadata[name]
    if text not in _VALUES:
        raise DataError(f"{row.file}: {name} is '{text}', expected 1, 0, -1 or nothing")
    return _VALUES[text]
