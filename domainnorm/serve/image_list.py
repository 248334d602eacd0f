"""List of the images that a finished run is shown: which, in which order, and what a table says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from domainnorm.data.images import SUFFIXES, check_names, find_images, without_masks
from domainnorm.data.table import read_lines
from domainnorm.errors import ConditionError, DataError, nearest, unknown

_TABLES = (".csv", ".tsv", ".parquet")
# Tables of datasets, manifests and splits, name them otherwise, and say more than is of use here.
_NAMES = ("image", "path", "file")
_OF_DATASETS = ("target", "class", "split", "group")
_FIRST, _SHOWN = 10, 60  # lines of a list, one of which is a path; letters of one in a message
_BLOCK = 4096  # bytes, in which stands what tells them from text


def is_image(file: Path) -> bool:
    """Whether a file is an image by its suffix."""
    return file.suffix.lower() in SUFFIXES


def images_below(folder: Path) -> list[Path]:
    """Images below a folder; where there are folders ``images`` and ``masks``, of the first."""
    return [folder / name for name in without_masks(find_images(folder))]


@dataclass(frozen=True)
class ImageList:
    """Images in order, and what is known of them."""

    place: Path  # the folder, list, table or image that was named
    files: Sequence[tuple[Path, Path]]  # name and file of each
    domains: Sequence[str]  # by the column of a table, empty where it says nothing
    columns: Mapping[str, Sequence[str]] | None = None  # what else is told of each; None: nothing
    given: Sequence[str] = ()  # those of them that are columns of a table

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def parts(self, parts: Sequence[tuple[int, Path]]) -> ImageList:
        """The list of what its files hold, such as slices; what is said of a file goes for each.

        Each part is the position of its file, and its name.
        """
        positions = [position for position, _ in parts]

        def of_each(values: Sequence[str]) -> list[str]:
            return [values[position] for position in positions]

        return replace(
            self,
            files=[(name, self.files[position][1]) for position, name in parts],
            domains=of_each(self.domains),
            columns=self.columns and {name: of_each(self.columns[name]) for name in self.columns},
        )

    def check_domains(self, known: Sequence[str]) -> None:
        """Raise a ConditionError for names in a table that are no domains of the model."""
        for number, name in enumerate(self.domains, 1):
            if name and name not in known:
                raise ConditionError(
                    f"{self.place}, row {number}: {unknown('domain', name, known)}; leave the cell "
                    "empty for an image of another domain"
                )

    def attributes(self, names: Sequence[str], instead: str) -> dict[str, Sequence[str]]:
        """Columns that the model reads.

        Raises:
            ConditionError: There is no table, or one that lacks a column; ``instead`` says what
                else could be done.
        """
        if self.columns is None:
            raise ConditionError(
                f"{self.place}: the model needs attributes of images ({', '.join(names)}) from a "
                f"table; give a CSV with the columns image, {', '.join(names)}, and empty cells "
                f"for unknown values{instead}"
            )
        for name in names:
            if name not in self.columns:
                raise ConditionError(
                    f"{self.place}: {unknown('column', name, self.columns)}; the model needs the "
                    f"attributes {', '.join(names)}: add the column, with empty cells for unknown "
                    f"values{instead}"
                )
        return {name: self.columns[name] for name in names}


def list_images(
    place: Path,
    written: Path | None = None,
    search: Callable[[Path], Iterable[Path]] = images_below,
    is_one: Callable[[Path], bool] = is_image,
) -> ImageList:
    """The images of a folder, a list, a table, or a file that is one.

    Args:
        place: A folder, searched below as well; a text file with a path per line; a table (CSV,
            TSV or Parquet) with the column ``image`` (or ``path``, ``file``) and others if wanted,
            ``domain`` and attributes; or an image. Paths are relative to the folder of the list.
        written: Where the predictions go, of which none is an image.
        search: What lies below a folder, where images are files of another kind.
        is_one: Whether a file is an image of that kind, and no list.

    Raises:
        DataError: No such place, a name that is not UTF-8, or a list or table that lacks a column
            or a path, or names an image twice.
    """
    if place.is_dir():
        files = _below(place, search(place), written)
    elif not place.is_file():
        raise DataError(f"{place}: no such folder or list of files; check the path")
    elif place.suffix.lower() in _TABLES:
        return _tabled(place)
    elif is_one(place):
        files = [(Path(place.name), place)]
    else:
        lines = [line.strip() for line in _text_of(place).splitlines()]
        _check_paths(place, [line for line in lines if line][:_FIRST], is_one)
        files = _each_once(place, "line", lines)
    return ImageList(place, files, [""] * len(files))


def _tabled(table: Path) -> ImageList:
    lines = read_lines(table)
    columns = [name for name in lines[0] if name]
    named = next((name for name in _NAMES if name in columns), None)
    if named is None:
        meant = nearest("image", columns)
        hint = f"call '{meant}' 'image' if it does; " if meant else ""
        raise DataError(
            f"{table}: no column image, path or file names its images; {hint}it has "
            f"{', '.join(columns) or 'none'}; a list of files without a header ends with .txt"
        )
    cells = [line[named] for line in lines]
    if "" in cells:
        row = cells.index("") + 1
        raise DataError(f"{table}, row {row}: no image; name its file, or remove the row")
    further = [name for name in columns if name not in (named, "domain", *_OF_DATASETS)]
    return ImageList(
        table,
        _each_once(table, "row", cells),
        [line.get("domain", "") for line in lines],
        {name: [line[name] for line in lines] for name in further},
        further,
    )


def _check_paths(place: Path, first: list[str], is_one: Callable[[Path], bool]) -> None:
    """Refuse a text whose first lines are neither files nor names of images."""
    paths = [place.parent / line for line in first]
    if first and not any(path.is_file() or is_image(path) or is_one(path) for path in paths):
        line = first[0] if len(first[0]) <= _SHOWN else f"{first[0][:_SHOWN]}…"
        raise DataError(
            f"{place}: a file with this suffix is read as a list, a path per line, but the first "
            f"lines are no files, such as '{line}'; give a folder of images, an image or a list"
        )


def _each_once(place: Path, what: str, entries: Iterable[str]) -> list[tuple[Path, Path]]:
    """Names and files that the lines or rows of a list give; empty ones are left out."""
    found: dict[Path, int] = {}
    for number, entry in enumerate(entries, 1):
        name = Path(entry)
        if entry and name in found:
            raise DataError(
                f"{place}, {what} {number}: '{name}' is already listed in {what} {found[name]}, "
                f"expected each image once; remove the {what}, or list a link to the file"
            )
        if entry:
            found[name] = number
    return [(name, place.parent / name) for name in found]


def _below(place: Path, files: Iterable[Path], written: Path | None) -> list[tuple[Path, Path]]:
    """Names and files below a folder in order; numbers in names count as such."""
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


def below(name: Path) -> Path:
    """The name of an image as that of a file below a folder, which it cannot lead out of."""
    return Path(str(name).lstrip("/").replace("..", "_"))


def mask_file(name: Path) -> Path:
    """Where the mask of an image is written, below the folder of masks."""
    own = below(name)
    return own.parent / f"{own.stem}.png"


def check_masks(
    place: Path, names: Iterable[Path], file_of: Callable[[Path], Path] = mask_file
) -> None:
    """Raise a DataError for images whose masks, by ``file_of`` their names, would be one file."""
    masks: dict[Path, Path] = {}
    for name in names:
        mask = file_of(name)
        if masks.setdefault(mask, name) != name:
            raise DataError(
                f"{place}: masks/{mask} would be the mask of {masks[mask]} and of {name}; rename "
                "one of the images"
            )


def _text_of(place: Path) -> str:
    """What a list says; an image, a film or another file of bytes is refused."""
    with place.open("rb") as file:
        block = file.read(_BLOCK)
        if b"\0" not in block:
            try:
                # Some editors begin a text with a mark of its bytes, no part of the first name.
                return (block + file.read()).decode("utf-8-sig")
            except UnicodeDecodeError:
                pass
    raise DataError(
        f"{place}: not a text list of files in UTF-8, nor an image that is read "
        f"({', '.join(sorted(SUFFIXES))}); convert it, and cut films into frames, as with "
        "`ffmpeg -i FILM FOLDER/%06d.png`"
    )


def _natural(name: Path) -> list[tuple[int, int | str]]:
    """``frame_2`` before ``frame_10``."""
    parts = re.split(r"(\d+)", str(name))
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]
