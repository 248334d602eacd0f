"""List of the images that a finished run is shown: which, in which order, and what a table says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainnorm.data.folders import find_images
from domainnorm.data.images import SUFFIXES
from domainnorm.data.piles import check_names, without_masks
from domainnorm.data.table import read_lines
from domainnorm.errors import ConditionError, DataError, unknown

_TABLES = (".csv", ".tsv", ".parquet")
# Tables of datasets, manifests and splits, name them otherwise, and say more than is of use here.
_NAMES = ("image", "path", "file")
_OF_DATASETS = ("target", "class", "split", "group")
# What tells bytes from text stands in the first ones.
_BLOCK = 4096


@dataclass(frozen=True)
class ImageList:
    """Images in order, and what is known of them.

    Args:
        place: The folder, list, table or image that was named.
        files: Name and file of each.
        domains: What the column ``domain`` of a table says of each, empty where nothing.
        columns: What is told further -> value for each image; None where nothing tells anything.
        given: Those of them that are columns of a table.
    """

    place: Path
    files: Sequence[tuple[Path, Path]]
    domains: Sequence[str]
    columns: Mapping[str, Sequence[str]] | None = None
    given: Sequence[str] = ()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def check_domains(self, known: Sequence[str]) -> None:
        """Refuse names in a table that are no domains of the model.

        Raises:
            ConditionError: Names the first, its row and the nearest domain.
        """
        for number, name in enumerate(self.domains, 1):
            if name and name not in known:
                raise ConditionError(
                    f"{self.place}, row {number}: {unknown('domain', name, known)}; leave the cell "
                    "empty for an image of another domain"
                )

    def attributes(self, names: Sequence[str], instead: str) -> dict[str, Sequence[str]]:
        """Columns that the model reads.

        Args:
            names: Of the columns.
            instead: What else could be done, for the message.

        Raises:
            ConditionError: There is no table, or one that lacks a column.
        """
        if self.columns is None:
            raise ConditionError(
                f"{self.place}: the model reads attributes of images, {', '.join(names)}, which "
                f"only a table can tell; give a CSV with the columns image, {', '.join(names)}, "
                f"empty cells where nothing is known{instead}"
            )
        for name in names:
            if name not in self.columns:
                raise ConditionError(
                    f"{self.place}: {unknown('column', name, self.columns)}; the model reads "
                    f"attributes, {', '.join(names)}: add the column, with empty cells where "
                    f"nothing is known{instead}"
                )
        return {name: self.columns[name] for name in names}


def list_images(place: Path, written: Path) -> ImageList:
    """The images of a folder, a list, a table, or a file that is one.

    Args:
        place: A folder, searched below as well; a text file with a path per line; a table (CSV,
            TSV or Parquet) with the column ``image`` (or ``path``, ``file``) and others if wanted,
            ``domain`` and attributes; or an image. Paths are relative to the folder of the list.
        written: Where the predictions go, of which none is an image.

    Raises:
        DataError: No such place, no images in it, or a table that lacks a column or a path, or
            names an image twice.
    """
    ending = place.suffix.lower()
    if place.is_file() and ending in _TABLES:
        return _tabled(place)
    if place.is_file() and ending in SUFFIXES:
        files = [(Path(place.name), place)]
    else:
        files = image_files(place, written)
    return ImageList(place, files, [""] * len(files))


def list_files(
    place: Path,
    written: Path,
    search: Callable[[Path], Iterable[Path]],
    is_one: Callable[[Path], bool],
) -> ImageList:
    """`list_images` of files of another kind.

    Args:
        place: See there.
        written: See there.
        search: What lies below a folder.
        is_one: Whether a file is of that kind, and no list.

    Raises:
        DataError: See there; an empty folder is none.
    """
    if place.is_dir():
        files = below(place, search(place), written)
    elif place.is_file() and is_one(place):
        files = [(Path(place.name), place)]
    else:
        return list_images(place, written)
    return ImageList(place, files, [""] * len(files))


def _tabled(table: Path) -> ImageList:
    lines = read_lines(table)
    columns = [name for name in lines[0] if name]
    named = next((name for name in _NAMES if name in columns), None)
    if named is None:
        raise DataError(
            f"{table}: {unknown('column', 'image', columns)}; a table names its images in a column "
            "image, path or file, and a list of files without a header ends with .txt"
        )
    names = [Path(line[named]) for line in lines]
    _check_each_once(table, [line[named] for line in lines], names)
    further = [name for name in columns if name not in (named, "domain", *_OF_DATASETS)]
    return ImageList(
        table,
        [(name, table.parent / name) for name in names],
        [line.get("domain", "") for line in lines],
        {name: [line[name] for line in lines] for name in further},
        further,
    )


def _check_each_once(table: Path, cells: Sequence[str], names: Sequence[Path]) -> None:
    rows: dict[Path, int] = {}
    for number, (cell, name) in enumerate(zip(cells, names, strict=True), 1):
        if not cell:
            raise DataError(f"{table}, row {number}: no image; name its file, or remove the row")
        if name in rows:
            raise DataError(
                f"{table}, row {number}: '{name}' is listed in row {rows[name]} already, expected "
                "each image once; remove the row"
            )
        rows[name] = number


def image_files(place: Path, written: Path | None = None) -> list[tuple[Path, Path]]:
    """Images of a folder or list in order: name below it, and file.

    Args:
        place: A folder, searched below as well, or a text file with a path per line. Where there
            are folders ``images`` and ``masks``, what lies in the first.
        written: A folder of what is predicted, whose files are none of the images.

    Raises:
        DataError: Neither a folder nor a list, no images, a name that is not UTF-8, or a list that
            names an image twice.
    """
    if place.is_dir():
        found = without_masks(find_images(place))
        names = below(place, [place / name for name in found], written)
    elif place.is_file():
        names = [(name, place.parent / name) for name in _listed(place)]
    else:
        raise DataError(f"{place}: no such folder or list of files; check the path")
    if not names:
        raise DataError(f"{place}: no images in it (known: {', '.join(sorted(SUFFIXES))})")
    return names


def below(
    place: Path, files: Iterable[Path], written: Path | None = None
) -> list[tuple[Path, Path]]:
    """Names and files below a folder in order; numbers in names count as such.

    Args:
        place: The folder.
        files: Below it.
        written: A folder whose files are left out.

    Raises:
        DataError: A name that is not UTF-8.
    """
    names = sorted((file.relative_to(place) for file in files), key=_natural)
    if written is not None:
        root, own = place.resolve(), written.resolve()
        names = [name for name in names if own not in (root / name).parents]
    check_names([place.resolve(), *names])
    return [(name, place / name) for name in names]


def name_of(place: Path) -> str:
    """What images are called: ``cam.2024`` the folder of that name, ``cam`` the list cam.txt."""
    own = place.resolve()
    return own.name if own.is_dir() else own.stem


def mask_file(name: Path) -> Path:
    """Where the mask of an image is written, below the folder of masks."""
    own = Path(str(name).lstrip("/").replace("..", "_"))
    return own.parent / f"{own.stem}.png"


def check_masks(
    place: Path, names: Iterable[Path], file_of: Callable[[Path], Path] = mask_file
) -> None:
    """Refuse images whose masks would be one file.

    Args:
        place: Folder or list.
        names: Of the images.
        file_of: Where the mask of an image is written, below the folder of masks.

    Raises:
        DataError: Names the first two.
    """
    masks: dict[Path, Path] = {}
    for name in names:
        mask = file_of(name)
        if masks.setdefault(mask, name) != name:
            raise DataError(
                f"{place}: masks/{mask} would be the mask of {masks[mask]} and of {name}; rename "
                "one of the images"
            )


def _listed(place: Path) -> list[Path]:
    found: dict[Path, int] = {}
    for number, line in enumerate(_text_of(place).splitlines(), 1):
        if not line.strip():
            continue
        name = Path(line.strip())
        if name in found:
            raise DataError(
                f"{place}, line {number}: '{name}' is listed in line {found[name]} already, "
                "expected each file once, since results go by their names; remove the line, or "
                "list a link to the file"
            )
        found[name] = number
    return list(found)


def _text_of(place: Path) -> str:
    """What a list says.

    Raises:
        DataError: It is an image, a film or another file of bytes.
    """
    with place.open("rb") as file:
        block = file.read(_BLOCK)
        if place.suffix.lower() not in SUFFIXES and b"\0" not in block:
            try:
                # Some editors begin a text with a mark of its bytes, no part of the first name.
                return (block + file.read()).decode("utf-8-sig")
            except UnicodeDecodeError:
                pass
    raise DataError(
        f"{place}: not a text list of files in UTF-8; give the folder of the images, and cut "
        "films into frames, as with `ffmpeg -i FILM FOLDER/%06d.png`"
    )


def _natural(name: Path) -> list[tuple[int, int | str]]:
    """``frame_2`` before ``frame_10``."""
    parts = re.split(r"(\d+)", str(name))
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]
