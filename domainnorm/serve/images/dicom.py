"""DICOM files that are predicted; their headers tell scanner and attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dicom_headers import (
    ATTRIBUTES,
    Header,
    dicom_files,
    frame_names,
    read_header,
    read_pixels,
)
from domainnorm.data.parallel import read_all
from domainnorm.errors import DataError
from domainnorm.serve.images.image_list import ImageList, list_files
from domainnorm.serve.images.source import ImageSource


@dataclass(frozen=True)
class _Image:
    """One frame, or a file that is listed and has none.

    Args:
        number: Of its file in the list.
        name: What it is called.
        file: Where it is.
        frame: Position in the file.
        header: None where there is none.
        problem: Why there is none.
    """

    number: int
    name: Path
    file: Path
    frame: int = 0
    header: Header | None = None
    problem: str = ""


class DicomImages(ImageSource):
    """Images of DICOM files, one for each frame, windowed as in training.

    Args:
        place: A folder, searched below as well; one DICOM file; or a list or table of them.
        written: Where the predictions go.
        options: Of the run's dataset: ``window``, ``spacing``, ``domain_by``.
        known: Domains that headers may tell: scanners of this name. Cells of a table come first.
        attributes: What the model reads of headers, where a table has no such column.

    Raises:
        DataError: No DICOM images, or a wrong table, see `list_images`.
    """

    def __init__(
        self,
        place: Path,
        written: Path,
        options: Mapping[str, Any],
        known: Sequence[str] = (),
        attributes: Sequence[str] = (),
    ) -> None:
        self._shown = options.get("window"), options.get("spacing")
        listed = list_files(place, written, dicom_files, _is_dicom)
        self._images = images = list(_images(listed))
        if not images:
            raise DataError(f"{place}: no DICOM images in it, as the run was trained on")
        key = options.get("domain_by", "model")
        scanners = ["" if one.header is None else one.header.scanner(key) for one in images]
        domains = [
            listed.domains[one.number] or (scanner if scanner in known else "")
            for one, scanner in zip(images, scanners, strict=True)
        ]
        columns = {name: _tags(images, name) for name in attributes if name in ATTRIBUTES}
        for name, cells in (listed.columns or {}).items():
            columns[name] = [cells[one.number] for one in images]
        files = [(one.name, one.file) for one in images]
        problems = {number: one.problem for number, one in enumerate(images) if one.problem}
        super().__init__(ImageList(place, files, domains, columns or None, listed.given), problems)

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """See `ImageSource`."""
        image = self._images[number]
        return read_pixels(image.file, image.frame, *self._shown)


def _is_dicom(file: Path) -> bool:
    return isinstance(_header(file), Header)


def _images(listed: ImageList) -> Iterator[_Image]:
    headers = read_all(_header, [file for _, file in listed.files])
    for number, ((name, file), header) in enumerate(zip(listed.files, headers, strict=True)):
        if isinstance(header, Header):
            for frame, shown in enumerate(frame_names(str(name), header.frames)):
                yield _Image(number, Path(shown), file, frame, header)
        elif header:
            yield _Image(number, name, file, problem=header)
        elif not listed.place.is_dir():  # in a folder, reports and other files are passed over
            yield _Image(number, name, file, problem=f"{file}: missing, or no image of DICOM")


def _header(file: Path) -> Header | str | None:
    """The header, why it cannot be read, or None for no image of DICOM."""
    try:
        return read_header(file)
    except DataError as error:
        return str(error)


def _tags(images: Sequence[_Image], name: str) -> Sequence[str]:
    return ["" if one.header is None else one.header.tags[ATTRIBUTES[name]] for one in images]
