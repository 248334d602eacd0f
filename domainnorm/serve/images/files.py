"""Which images a folder or a list has, and in which order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from domainnorm.data.decode import SUFFIXES
from domainnorm.data.folders import find_images
from domainnorm.data.piles import check_names, without_masks
from domainnorm.errors import DataError

# What tells bytes from text stands in the first ones.
_BLOCK = 4096


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
