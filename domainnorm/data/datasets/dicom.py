"""DICOM files with classes from a table; the scanner that made an image is its domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import (
    UNLABELLED,
    Record,
    Split,
)
from domainnorm.data.datasets.drawing import draw_volume
from domainnorm.data.datasets.layout import TestedDataset
from domainnorm.data.refusals import refuse
from domainnorm.data.splits import check_groups
from domainnorm.data.table import normal_path, read_delimited
from domainnorm.data.volumes.dicom_files import (
    ATTRIBUTES,
    Header,
    file_and_frame,
    frame_names,
    read_headers,
    read_pixels,
)
from domainnorm.data.volumes.grey_values import check_spacing, check_window, import_medical
from domainnorm.errors import DataError, unknown
from domainnorm.registry import register

SPLITS: tuple[Split, ...] = ("train", "val", "test")
KEYS = ("file", "SOPInstanceUID", "SeriesInstanceUID", "PatientID")


@register
class Dicom(TestedDataset):
    """DICOM images below a folder, in any arrangement of folders, with ``labels.csv`` for classes.

    Each row of the table names its images by one of the columns file (path below ``root``),
    SOPInstanceUID, SeriesInstanceUID or PatientID. The other columns are ``class`` and, optionally,
    ``split``. Images without a row, or with an empty class, have no label; a row without an image
    is refused. Domains come from the headers. Rescale slope and intercept and a window are applied
    to values; MONOCHROME1 is inverted. A file with several frames is several images. A group is a
    patient (PatientID, or else the series) and belongs to one split; images without a row are in
    the split of their patient. Without a ``split`` column, test and validation splits are drawn by
    patient.

    See `TestedDataset` for the other keys.

    Args:
        labels: Name of the table inside ``root``.
        domain_by: Header fields that name the domain: manufacturer and ``model`` (siemens_skyra),
            only the ``manufacturer``, or the ``institution``.
        window: Centre and width of the displayed values, such as [40, 400] (HU) for soft tissue in
            CT. Null takes the header's window, or the 0.5 to 99.5 percentiles if it has none.
        spacing: Distance between pixels after resampling, in mm; null does not resample.

    Raises:
        DataError: The package pydicom is missing, the table or a file is wrong, or splits tear a
            patient apart; the message names it.
    """

    task = "classification"
    reads = "dicom"
    layout = "**/*.dcm, labels.csv (PatientID,class or another key; split if wanted)"

    def __init__(
        self,
        *,
        labels: str = "labels.csv",
        domain_by: Literal["model", "manufacturer", "institution"] = "model",
        window: list[float] | None = None,
        spacing: float | None = None,
        **options: Any,
    ) -> None:
        check_window("data.window", window)
        check_spacing("data.spacing", spacing)
        self._labels, self._domain_by = labels, domain_by
        self._window, self._spacing = window, spacing
        super().__init__(**options)

    def find_domains(self, asked: Sequence[str]) -> list[str]:
        """What the headers name."""
        self._headers = list(read_headers(self.root, self.left_out))
        if not self._headers:
            raise DataError(f"{self.root}: no DICOM images; expected {self.layout}")
        return sorted({header.scanner(self._domain_by) for header in self._headers})

    def scan(self) -> list[Record]:
        """Records of the chosen domains, in the splits of the table."""
        headers = self._headers
        table = _Table(self.root / self._labels)
        self.class_names = table.classes
        rows = [table.rows.get(table.value(header, self.root), {}) for header in headers]
        given = {
            self._group(header): split
            for header, row in zip(headers, rows, strict=True)
            if (split := table.split(row))
        }
        records = [
            record
            for header, row in zip(headers, rows, strict=True)
            for record in self._records(header, table, row, given)
        ]
        check_groups(records, str(table.file))
        records = [record for record in records if record.domain in self.domain_names]
        if all(record.target == UNLABELLED for record in records):
            raise DataError(
                f"{table.file}: no {table.key} in it belongs to an image of "
                f"{', '.join(self.domain_names)}; check the column {table.key}"
            )
        table.check_used(headers, self.root)
        return records

    def _group(self, header: Header) -> str:
        file = header.file.relative_to(self.root).as_posix()
        return header.tags["PatientID"] or header.tags["SeriesInstanceUID"] or file

    def _records(
        self,
        header: Header,
        table: _Table,
        row: Mapping[str, str],
        given: Mapping[str, Split],
    ) -> list[Record]:
        file = header.file.relative_to(self.root).as_posix()
        name, group = row.get("class", ""), self._group(header)
        return [
            Record(
                shown,
                header.scanner(self._domain_by),
                table.classes.index(name) if name else UNLABELLED,
                group,
                table.split(row) or given.get(group, "train"),
                metadata={name: header.tags[tag] for name, tag in ATTRIBUTES.items()},
            )
            for shown in frame_names(file, header.frames)
        ]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record: (H, W, 3), 0 to 255; only its own frame is decoded."""
        file, frame = file_and_frame(self.root / self.records[index].file)
        return read_pixels(file, frame, self._window, self._spacing)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write two slices each of 20 drawn patients; one of two scanners is MONOCHROME1."""
        rows = ["PatientID,class"]
        scanners = (("SIEMENS", "Skyra"), ("GE MEDICAL SYSTEMS", "SIGNA HDxt"))
        for number in range(20):
            scanner, present = number % 2, (number // 2) % 2
            generator = np.random.default_rng([seed, number])
            volume, organ = draw_volume(generator, scanners[scanner][0], (64, 64, 9))
            # A class that can be seen: a dark lesion in the organ.
            volume[(organ > 0) & bool(present)] //= 3
            patient = f"patient_{number:02d}"
            rows.append(f"{patient},{('healthy', 'lesion')[present]}")
            for position in (3, 4):
                file = root / patient / "series_1" / f"{position}.dcm"
                file.parent.mkdir(parents=True, exist_ok=True)
                plane = np.rot90(volume[..., position]).astype(np.uint16)
                _write(file, plane, patient, scanners[scanner])
        (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


class _Table:
    """Rows of labels.csv by what they are about."""

    def __init__(self, file: Path) -> None:
        self.file = file
        if not file.is_file():
            raise DataError(
                f"{file}: missing; write a CSV table with one of {', '.join(KEYS)} and class, "
                "or name another one with data.labels"
            )
        names, lines = read_delimited(file)
        rows = [{name: cell.strip() for name, cell in line.items()} for _, line in lines]
        found = [key for key in KEYS if key in names]
        if len(found) != 1 or "class" not in names:
            raise DataError(
                f"{file}: columns {','.join(names) or 'none'}; expected exactly one of "
                f"{', '.join(KEYS)}, and class"
            )
        self.key = found[0]
        spelt = normal_path if self.key == "file" else str
        self.rows: Mapping[str, Mapping[str, str]] = {spelt(row[self.key]): row for row in rows}
        if len(self.rows) != len(rows):
            refuse(f"{file}: a {self.key} is listed more than once; keep one row each")
        self.classes = sorted({row["class"] for row in rows if row["class"]})

    def value(self, header: Header, root: Path) -> str:
        """What the table calls a file."""
        if self.key == "file":
            return header.file.relative_to(root).as_posix()
        return header.tags[self.key]

    def check_used(self, headers: Iterable[Header], root: Path) -> None:
        """Refuse rows about something that is not there.

        Raises:
            DataError: Names the first.
        """
        there = {self.value(header, root) for header in headers}
        for name in self.rows:
            if name not in there:
                refuse(
                    f"{self.file}: {self.key} '{name}' is listed but no DICOM image below {root} "
                    "has it; restore the file, correct the row, or remove it"
                )

    def split(self, row: Mapping[str, str]) -> Split | None:
        """The split of a row; None where it names none."""
        given = row.get("split", "")
        if not given:
            return None
        for known in SPLITS:
            if given == known:
                return known
        refuse(f"{self.file}: {unknown('split', given, SPLITS)}")
        return None


def _write(file: Path, plane: NDArray[np.uint16], patient: str, scanner: tuple[str, str]) -> None:
    pydicom = import_medical("pydicom")
    uid = pydicom.uid.generate_uid(entropy_srcs=[patient, file.name])
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image = pydicom.dataset.FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = pydicom.uid.MRImageStorage, uid
    image.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[patient])
    image.PatientID, image.Modality = patient, "MR"
    image.Manufacturer, image.ManufacturerModelName = scanner
    image.Rows, image.Columns = plane.shape
    image.SamplesPerPixel, image.PixelRepresentation = 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    inverted = scanner[0] == "SIEMENS"
    image.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    high = int(plane.max())
    image.WindowCenter, image.WindowWidth = high / 2, high
    image.PixelSpacing = [1.5, 1.5]
    image.PixelData = np.ascontiguousarray(high - plane if inverted else plane).tobytes()
    image.save_as(file, enforce_file_format=True)
