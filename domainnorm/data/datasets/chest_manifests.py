"""Tables of chest X-rays in the columns of CheXpert, NIH ChestX-ray14 and PadChest."""

from __future__ import annotations

import ast
import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from domainnorm.errors import DataError

# The findings that all three name.
FINDINGS = (
    "atelectasis",
    "cardiomegaly",
    "consolidation",
    "edema",
    "effusion",
    "pneumonia",
    "pneumothorax",
)
UNCERTAIN, UNMENTIONED, PRESENT, ABSENT, UNKNOWN = -2, -3, 1, 0, -1
_CHEXPERT = {**{name: name.capitalize() for name in FINDINGS}, "effusion": "Pleural Effusion"}
_PADCHEST = {**{name: name for name in FINDINGS}, "effusion": "pleural effusion"}
# Such a PadChest report says nothing of findings it does not name.
_PADCHEST_SILENT = {"unchanged", "exclude", "suboptimal study"}


@dataclass(frozen=True)
class Study:
    """One line of a table.

    Args:
        path: Where the table says that the image is; a bare name in NIH's.
        patient: Identity of the patient in this site.
        findings: For each of ``FINDINGS`` present, absent, unknown, uncertain or unmentioned.
        frontal: Whether it is a frontal view.
        metadata: View, sex and age as the table has them.
    """

    path: str
    patient: str
    findings: tuple[int, ...]
    frontal: bool
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)


def read_manifest(table: Path) -> Iterator[Study] | None:
    """Studies of a table in one of the known columns; None for a table of something else.

    Raises:
        DataError: The table cannot be read, or a value is none its columns allow.
    """
    # PadChest quotes whole reports, longer than the reader's default limit.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            names = set(next(csv.reader(stream), []))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as a UTF-8 CSV table: {error}") from error
    for columns, read in _STYLES.items():
        if names.issuperset(columns):
            return _studies(table, read)
    return None


def _studies(table: Path, read: Callable[[dict[str, str]], Study]) -> Iterator[Study]:
    with table.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, restval="")
        for row in reader:
            try:
                yield read(row)
            except (KeyError, ValueError, SyntaxError) as error:
                raise DataError(
                    f"{table}, line {reader.line_num}: {error}; the columns are known, the value "
                    "is not; restore the line or remove it"
                ) from None


def _chexpert(row: dict[str, str]) -> Study:
    values = {"1.0": PRESENT, "0.0": ABSENT, "-1.0": UNCERTAIN, "": UNMENTIONED}
    found = [values[row[_CHEXPERT[name]].strip()] for name in FINDINGS]
    patient = next(part for part in Path(row["Path"]).parts if part.startswith("patient"))
    view = row.get("AP/PA") or row["Frontal/Lateral"]
    frontal = row["Frontal/Lateral"] == "Frontal"
    described = {"view": view, "sex": row.get("Sex", ""), "age": row.get("Age", "")}
    return Study(row["Path"], patient, tuple(found), frontal, described)


def _nih(row: dict[str, str]) -> Study:
    named = {name.lower() for name in row["Finding Labels"].split("|")}
    found = [PRESENT if name in named else ABSENT for name in FINDINGS]
    described = {
        "view": row.get("View Position", ""),
        "sex": row.get("Patient Gender", row.get("Patient Sex", "")),
        "age": row.get("Patient Age", ""),
    }
    # All of its views are frontal.
    return Study(row["Image Index"], row["Patient ID"], tuple(found), True, described)


def _padchest(row: dict[str, str]) -> Study:
    labels = ast.literal_eval(row["Labels"]) if row["Labels"].strip() else None
    if labels is not None and not isinstance(labels, list):
        raise ValueError(f"Labels {row['Labels']!r}, expected a list of names")
    named = [str(label).strip().lower() for label in labels or []]
    rest = UNKNOWN if labels is None or _PADCHEST_SILENT & set(named) else ABSENT
    found = [
        PRESENT if any(_PADCHEST[name] in label for label in named) else rest for name in FINDINGS
    ]
    view = row.get("Projection", "")
    described = {"view": view, "sex": row.get("PatientSex_DICOM", "")}
    path = f"{row['ImageDir']}/{row['ImageID']}" if row.get("ImageDir") else row["ImageID"]
    return Study(
        path, row["PatientID"], tuple(found), view in ("PA", "AP", "AP_horizontal"), described
    )


_STYLES: dict[tuple[str, ...], Callable[[dict[str, str]], Study]] = {
    ("Path", "Frontal/Lateral", *_CHEXPERT.values()): _chexpert,
    ("Image Index", "Finding Labels", "Patient ID"): _nih,
    ("ImageID", "Labels", "PatientID"): _padchest,
}
