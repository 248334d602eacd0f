"""Chest X-rays of several sites, in the tables of CheXpert, NIH ChestX-ray14 and PadChest."""

from __future__ import annotations

import ast
import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from domainnorm.data.dataset import (
    Record,
    Split,
    checked_white,
)
from domainnorm.data.datasets.drawing import draw_grey, generator_of, write_image
from domainnorm.data.datasets.layout import TestedDataset
from domainnorm.data.images import SUFFIXES
from domainnorm.data.refusals import LeftOut, reading, refuse
from domainnorm.data.table import write_lines
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
    with (
        reading(table, "UTF-8 table", "save it as one"),
        table.open(newline="", encoding="utf-8-sig") as stream,
    ):
        names = set(next(csv.reader(stream, strict=True), []))
    for columns, read in _STYLES.items():
        if names.issuperset(columns):
            return _studies(table, columns, read)
    return None


def _studies(
    table: Path, columns: Sequence[str], read: Callable[[dict[str, str]], Study]
) -> Iterator[Study]:
    with (
        reading(table, "UTF-8 table", "save it as one"),
        table.open(newline="", encoding="utf-8-sig") as stream,
    ):
        reader = csv.DictReader(stream, strict=True)
        for row in reader:
            try:
                # Columns that are not looked at may end early, with the commas of the header.
                lacking = [name for name in columns if row[name] is None]
                if lacking or any(row.pop(None, ())):
                    raise ValueError(f"{'too few' if lacking else 'too many'} cells")
                yield read({name: cell or "" for name, cell in row.items()})
            except (KeyError, ValueError, SyntaxError, TypeError, StopIteration) as error:
                raise DataError(
                    f"{table}, line {reader.line_num}: {error}; this line cannot be read: restore "
                    "it, or remove it"
                ) from None


def _chexpert(row: dict[str, str]) -> Study:
    values = {"1.0": PRESENT, "0.0": ABSENT, "-1.0": UNCERTAIN, "": UNMENTIONED}
    found = [values[row[_CHEXPERT[name]].strip()] for name in FINDINGS]
    patient = next(part for part in Path(row["Path"]).parts if part.startswith("patient"))
    view = row.get("AP/PA") or row["Frontal/Lateral"]
    frontal = {"Frontal": True, "Lateral": False}[row["Frontal/Lateral"]]
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
class ChestXray(TestedDataset):
    """Seven findings in chest X-rays; each folder of the root is a site and a domain.

    A site has the table of CheXpert, NIH ChestX-ray14 or PadChest, or its own table with the
    columns of one of these; the columns tell which. Findings: atelectasis, cardiomegaly,
    consolidation, edema, effusion, pneumonia, pneumothorax. NIH tests on ``test_list.txt``,
    CheXpert on ``valid.csv`` (its test set is withheld); where a site has neither, a test split
    is drawn. Validation splits are drawn. Lateral views are left out. An image that tables list
    several times is read once; all its rows must agree. A group is a patient of a site.

    See `TestedDataset` for the other keys.

    Args:
        test_fraction: Share of a site's images to test on where it has no test set, in (0, 1).
        uncertain: Value of a finding that CheXpert labels as uncertain (-1); ``unknown`` leaves it
            out of loss and metrics.
        unmentioned: Value of a finding that CheXpert leaves empty.
        missing: What happens if a table lists absent images: ``error`` refuses the table, ``skip``
            skips them, for partial downloads.
        white: Pixel value of 16-bit images that is white, 256 to 65535; 4095 for 12 bits.
        options: Keys of `OfficialDataset`.

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
    class_names = list(FINDINGS)  # noqa: RUF012 - of all instances

    def __init__(
        self,
        *,
        test_fraction: float = 0.2,
        uncertain: Literal["unknown", "positive", "negative"] = "unknown",
        unmentioned: Literal["unknown", "negative"] = "negative",
        missing: Literal["error", "skip"] = "error",
        white: int = 65535,
        **options: Any,
    ) -> None:
        self.white = checked_white(white)
        meaning = {"unknown": UNKNOWN, "positive": PRESENT, "negative": ABSENT}
        self._meaning = {UNCERTAIN: meaning[uncertain], UNMENTIONED: meaning[unmentioned]}
        self._missing = missing
        super().__init__(test_fraction=test_fraction, **options)

    def find_domains(self, asked: Sequence[str]) -> list[str]:
        """Folders with tables."""
        folders = [entry for entry in sorted(self.root.iterdir()) if entry.is_dir()]
        read = {entry.name: _tables(entry, self.left_out) for entry in folders}
        self._sites = {site: tables for site, tables in read.items() if tables}
        if not self._sites:
            raise DataError(
                f"{self.root}: no folder has a table in known columns; expected {self.layout} "
                "(docs/data_medical.md)"
            )
        return list(self._sites)

    def scan(self) -> list[Record]:
        """Records of the chosen sites."""
        return [record for name in self.domain_names for record in self._site(name)]

    def _site(self, site: str) -> list[Record]:
        folder = self.root / site
        images = _images(folder)
        tested = _tested(folder)
        absent, differing = [], []
        read: dict[str, tuple[Record, Path]] = {}
        for table in self._sites[site]:
            for study in read_manifest(table) or ():
                if not study.frontal:
                    self.left_out.add("no frontal view", f"{site}/{study.path}")
                    continue
                file = _found(images, study.path)
                if file is None:
                    absent.append(f"{study.path} ({table})")
                    continue
                test = table.stem.lower() == "valid" or file.rpartition("/")[2] in tested
                record = self._record(site, file, study, "test" if test else "train")
                first, other = read.setdefault(file, (record, table))
                if replace(first, metadata=record.metadata) != record:
                    differing.append(f"{file} in {other} and {table}")
        if differing:
            refuse(
                f"{folder}: {counted(len(differing), 'image')} listed again with other findings, "
                f"patient or split, the first is {differing[0]}; keep one of the tables"
            )
        unknown_names = sorted(tested - {file.rpartition("/")[2] for file in images.values()})
        if unknown_names and (self._missing == "error" or len(unknown_names) == len(tested)):
            refuse(
                f"{folder / 'test_list.txt'}: {len(unknown_names)} of its "
                f"{counted(len(tested), 'name')} are no image here, the first is "
                f"{unknown_names[0]}; unpack all archives, or remove the list to have a test "
                "split drawn"
            )
        if absent and (self._missing == "error" or not read):
            refuse(
                f"{folder}: {len(absent)} images are listed but absent, the first is {absent[0]}; "
                "unpack all archives (CheXpert's are looked for by patient*/study*/view*), or "
                "set data.missing to 'skip'"
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
        tables: dict[str, list[dict[str, str]]] = defaultdict(list)
        for site, example in enumerate((_nih_example, _chexpert_example, _padchest_example)):
            for number in range(1, 25):
                generator = np.random.default_rng([seed, site, number])
                # One finding in turn, so that each is in every split, and some by chance.
                drawn = generator.random(len(FINDINGS)) < 0.2
                drawn[number % len(FINDINGS)] = True
                found = [name for name, is_in in zip(FINDINGS, drawn, strict=True) if is_in]
                table, file, row = example(number, found)
                things = (1 + np.flatnonzero(drawn)).tolist()
                grey = draw_grey(generator_of(seed, file), things, file.partition("/")[0])
                write_image(root / file, grey)
                tables[table].append(row)
        for name, rows in tables.items():
            write_lines(root / name, rows)
        listed = [row["Image Index"] for row in tables["nih/Data_Entry_2017.csv"][18:]]
        (root / "nih/test_list.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")


def _tables(site: Path, left_out: LeftOut) -> list[Path]:
    tables = []
    for file in (*sorted(site.glob("*")), *sorted(site.glob("*/*"))):
        if file.suffix.lower() != ".csv" or file.name[0] == ".":
            continue
        if read_manifest(file) is not None:
            tables.append(file)
        else:
            left_out.add("table in other columns", file.relative_to(site.parent).as_posix())
    return tables


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
    """The file that a table means: its path, or that without CheXpert's folder of the release.

    Or, where archives have folders of their own (``CheXpert-v1.0 batch 2 (train 1)``), by patient,
    study and view.
    """
    named = path, path.partition("/")[2], "/".join(path.split("/")[-3:])
    return next((images[name] for name in named if images.get(name)), None)


def _tested(site: Path) -> set[str]:
    """Names of the images of ``test_list.txt``, without the folders that some copies have."""
    file = site / "test_list.txt"
    if not file.is_file():
        return set()
    with reading(file, "list of images"):
        return {name.rpartition("/")[2] for name in file.read_text(encoding="utf-8").split()}


def _nih_example(number: int, found: list[str]) -> tuple[str, str, dict[str, str]]:
    """A table, an image and its row there."""
    row = {
        "Image Index": f"{number:08d}_000.png",
        "Finding Labels": "|".join(label.capitalize() for label in found),
        "Patient ID": str(number),
        **{"Patient Age": "050", "Patient Gender": "F", "View Position": "PA"},
    }
    return "nih/Data_Entry_2017.csv", f"nih/images_001/images/{row['Image Index']}", row


def _chexpert_example(number: int, found: list[str]) -> tuple[str, str, dict[str, str]]:
    split = "train" if number <= 18 else "valid"
    path = f"CheXpert-v1.0-small/{split}/patient{number:05d}/study1/view1_frontal.jpg"
    row = {"Path": path, "Sex": "Male", "Age": "60", "Frontal/Lateral": "Frontal", "AP/PA": "AP"}
    for k, (name, column) in enumerate(_CHEXPERT.items()):
        # Of the absent ones some are uncertain and some not mentioned, as in the real table.
        absent = "-1.0" if (number + k) % 5 == 0 else "" if (number + k) % 3 == 0 else "0.0"
        row[column] = "1.0" if name in found else absent
    return f"chexpert/CheXpert-v1.0-small/{split}.csv", f"chexpert/{path}", row


def _padchest_example(number: int, found: list[str]) -> tuple[str, str, dict[str, str]]:
    row = {
        "ImageID": f"{number:039d}_00-000-001.png",
        **{"ImageDir": "0", "PatientID": f"p{number}", "PatientSex_DICOM": "F"},
        "Projection": "PA",
        "Labels": repr([_PADCHEST[label] for label in found]),
    }
    table = "padchest/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    return table, f"padchest/0/{row['ImageID']}", row
