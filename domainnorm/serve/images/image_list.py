"""Which images are predicted, and what a table says about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainnorm.data.decode import SUFFIXES
from domainnorm.data.table import read_lines
from domainnorm.errors import ConditionError, DataError, unknown
from domainnorm.serve.images.files import below, image_files

_TABLES = (".csv", ".tsv", ".parquet")
# Tables of datasets, manifests and splits, name them otherwise, and say more than is of use here.
_NAMES = ("image", "path", "file")
_OF_DATASETS = ("target", "class", "split", "group")


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
