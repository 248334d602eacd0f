"""Chest X-rays of several sites, in the tables of CheXpert, NIH ChestX-ray14 and PadChest."""

from __future__ import annotations

import ast
import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    FileDataset,
    Record,
    Split,
    checked_white,
    resolved_root,
    select_domains,
)
from domainnorm.data.drawing import draw_grey, generator_of, write_image
from domainnorm.data.images import SUFFIXES
from domainnorm.data.layout import draw_split
from domainnorm.data.refusals import refuse
from domainnorm.errors import DataError, counted
from domainnorm.registry import register

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


@register
class ChestXray(FileDataset):
    """Seven findings in chest X-rays, each folder of the root a site and a domain.

    A site has the table of CheXpert, NIH ChestX-ray14 or PadChest, or one of its own in the
    columns of one of these; the columns tell which. Findings: atelectasis, cardiomegaly,
    consolidation, edema, effusion, pneumonia, pneumothorax. NIH tests on ``test_list.txt``,
    CheXpert on ``valid.csv`` (its test set is withheld); where a site has neither, a test split
    is drawn. Validation splits are drawn. Lateral views are left out. An
    image that tables list several times is read once, and has to be the same in all. A group is a
    patient of a site.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use, in this order; every folder with a known table when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of a site's images to test on where it has no test set, in (0, 1).
        split_seed: Seed of drawn splits.
        uncertain: What a finding is that CheXpert holds uncertain (-1): ``unknown`` takes it out
            of loss and metrics.
        unmentioned: What a finding is that CheXpert leaves empty.
        missing: ``error`` refuses tables that list absent images, ``skip`` reads those present,
            for downloads in parts.
        white: Value of 16-bit files that is shown as white; 4095 where they hold 12 bits.

    Raises:
        DataError: A table, image or site is missing, or a table is wrong; the message names it.

    Reference:
        Irvin et al., "CheXpert", AAAI 2019, arXiv:1901.07031; Wang et al., "ChestX-ray8", CVPR
        2017, arXiv:1705.02315; Bustos et al., "PadChest", MedIA 66, 2020, arXiv:1901.07441.
    """

    task = "multilabel"
    homepage = (
        "https://nihcc.app.box.com/v/ChestXray-NIHCC, "
        "https://stanfordmlgroup.github.io/competitions/chexpert/, "
        "https://bimcv.cipf.es/bimcv-projects/padchest/"
    )
    licence = "research use, registration; each site's own terms"
    layout = "<site>/ with Data_Entry_2017*.csv, CheXpert-*/train.csv or PADCHEST_*.csv, and images"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        uncertain: Literal["unknown", "positive", "negative"] = "unknown",
        unmentioned: Literal["unknown", "negative"] = "negative",
        missing: Literal["error", "skip"] = "error",
        white: int = 65535,
    ) -> None:
        self.root = resolved_root(root)
        self.white = checked_white(white)
        self.class_names = list(FINDINGS)
        meaning = {"unknown": UNKNOWN, "positive": PRESENT, "negative": ABSENT}
        self._meaning = {UNCERTAIN: meaning[uncertain], UNMENTIONED: meaning[unmentioned]}
        self._missing = missing
        sites = {
            entry.name: _tables(entry) for entry in sorted(self.root.iterdir()) if entry.is_dir()
        }
        known = [name for name, tables in sites.items() if tables]
        if not known:
            raise DataError(
                f"{self.root}: no folder has a table in known columns; expected {self.layout} "
                "(docs/data_medical.md)"
            )
        self.domain_names = select_domains(DOMAIN_KEYS, domains, known)
        records = [record for name in self.domain_names for record in self._site(name, sites[name])]
        records = draw_split(records, "test", test_fraction, split_seed)
        self.records = draw_split(records, "val", val_fraction, split_seed)

    def _site(self, site: str, tables: list[Path]) -> list[Record]:
        folder = self.root / site
        images = _images(folder)
        tested = _tested(folder)
        absent, differing = [], []
        read: dict[str, tuple[Record, Path]] = {}
        for table in tables:
            for study in read_manifest(table) or ():
                if not study.frontal:
                    continue
                file = _found(images, study.path)
                if file is None:
                    absent.append(f"{study.path} ({table})")
                    continue
                test = table.stem == "valid" or file.rpartition("/")[2] in tested
                record = self._record(site, file, study, "test" if test else "train")
                first, other = read.setdefault(file, (record, table))
                if replace(first, metadata=record.metadata) != record:
                    differing.append(f"{file} in {other} and {table}")
        if differing:
            refuse(
                f"{folder}: {counted(len(differing), 'image')} listed again with other findings, "
                f"patient or split, the first is {differing[0]}; keep one of the tables"
            )
        if absent and (self._missing == "error" or not read):
            refuse(
                f"{folder}: {len(absent)} images are listed but absent, the first is {absent[0]}; "
                "unpack all archives, or set data.missing to 'skip'"
            )
        return [record for record, _ in read.values()]

    def _record(self, site: str, file: str, study: Study, split: Split) -> Record:
        return Record(
            f"{site}/{file}",
            site,
            -1,
            f"{site}/{study.patient}",
            split,
            labels=tuple(self._meaning.get(value, value) for value in study.findings),
            metadata=study.metadata,
        )

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 72 drawn images with boxes of their findings, 24 in each official layout."""
        tables: list[list[tuple[str, ...]]] = [[], [], []]
        for site in range(3):
            for number in range(1, 25):
                generator = np.random.default_rng([seed, site, number])
                # One finding in turn, so that each is in every split, and some by chance.
                drawn = generator.random(len(FINDINGS)) < 0.2
                drawn[number % len(FINDINGS)] = True
                found = [name for name, is_in in zip(FINDINGS, drawn, strict=True) if is_in]
                path, row = _LINES[site](number, found)
                things = (1 + np.flatnonzero(drawn)).tolist()
                grey = draw_grey(generator_of(seed, path), things, path.partition("/")[0])
                write_image(root / path, grey)
                tables[site].append(row)
        nih, chexpert, padchest = tables
        _write(root / "nih/Data_Entry_2017.csv", [_NIH_COLUMNS, *nih])
        listed = "\n".join(row[0] for row in nih[18:]) + "\n"
        (root / "nih/test_list.txt").write_text(listed, encoding="utf-8")
        folder = root / "chexpert/CheXpert-v1.0-small"
        _write(folder / "train.csv", [_CHEXPERT_COLUMNS, *chexpert[:18]])
        _write(folder / "valid.csv", [_CHEXPERT_COLUMNS, *chexpert[18:]])
        name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
        _write(root / "padchest" / name, [_PADCHEST_COLUMNS, *padchest])


def _tables(site: Path) -> list[Path]:
    return [
        table
        for pattern in ("*.csv", "*/*.csv")
        for table in sorted(site.glob(pattern))
        if table.name[0] != "." and read_manifest(table) is not None
    ]


def _images(site: Path) -> dict[str, str]:
    """Path below the site by file name, and by name and folders where names repeat."""
    found: dict[str, str] = {}
    for file in _files(site):
        relative = file.relative_to(site).as_posix()
        parts = relative.split("/")
        for start in range(len(parts)):
            found.setdefault("/".join(parts[start:]), relative)
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)


def _found(images: dict[str, str], path: str) -> str | None:
    """The file that a table means: its path, or that without CheXpert's folder of the release."""
    return images.get(path) or images.get(path.partition("/")[2]) or None


def _tested(site: Path) -> set[str]:
    file = site / "test_list.txt"
    return set(file.read_text(encoding="utf-8").split()) if file.is_file() else set()


_NIH_COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
)
_CHEXPERT_COLUMNS = (
    "Path",
    "Sex",
    "Age",
    "Frontal/Lateral",
    "AP/PA",
    *("Pleural Effusion" if name == "effusion" else name.capitalize() for name in FINDINGS),
)
_PADCHEST_COLUMNS = ("ImageID", "ImageDir", "PatientID", "PatientSex_DICOM", "Projection", "Labels")


def _nih_line(number: int, found: list[str]) -> tuple[str, tuple[str, ...]]:
    name = f"{number:08d}_000.png"
    labels = "|".join(label.capitalize() for label in found)
    return f"nih/images_001/images/{name}", (name, labels, str(number), "050", "F", "PA")


def _chexpert_line(number: int, found: list[str]) -> tuple[str, tuple[str, ...]]:
    split = "train" if number <= 18 else "valid"
    path = f"CheXpert-v1.0-small/{split}/patient{number:05d}/study1/view1_frontal.jpg"
    # Of the absent ones some are uncertain and some not mentioned, as in the real table.
    absent = [
        "-1.0" if (number + k) % 5 == 0 else "" if (number + k) % 3 == 0 else "0.0"
        for k in range(7)
    ]
    values = ["1.0" if name in found else absent[k] for k, name in enumerate(FINDINGS)]
    return f"chexpert/{path}", (path, "Male", "60", "Frontal", "AP", *values)


def _padchest_line(number: int, found: list[str]) -> tuple[str, tuple[str, ...]]:
    name = f"{number:039d}_00-000-001.png"
    labels = ["pleural effusion" if label == "effusion" else label for label in found]
    return f"padchest/0/{name}", (name, "0", f"p{number}", "F", "PA", repr(labels))


_LINES = (_nih_line, _chexpert_line, _padchest_line)


def _write(file: Path, rows: list[tuple[str, ...]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
