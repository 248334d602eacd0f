"""Which images a stream has, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from domainnorm.data.decode import SUFFIXES
from domainnorm.data.folders import find_images
from domainnorm.errors import DataError


def stream_files(stream: Path) -> list[tuple[Path, Path]]:
    """Images of a stream in order: name below the stream, and file.

    Raises:
        DataError: Neither a folder nor a list, no images, or a list that names one twice.
    """
    if stream.is_dir():
        names = [(name, stream / name) for name in sorted(find_images(stream), key=_natural)]
    elif stream.is_file():
        names = [(name, stream.parent / name) for name in _listed(stream)]
    else:
        raise DataError(f"{stream}: no such folder or list of files; check --stream")
    if not names:
        raise DataError(f"{stream}: no images in it (known: {', '.join(sorted(SUFFIXES))})")
    return names


def mask_file(name: Path) -> Path:
    """Where the mask of an image is written, below the folder of masks."""
    own = Path(str(name).lstrip("/").replace("..", "_"))
    return own.parent / f"{own.stem}.png"


def check_masks(stream: Path, names: Iterable[Path]) -> None:
    """Refuse images whose masks would be one file.

    Raises:
        DataError: Names the first two.
    """
    masks: dict[Path, Path] = {}
    for name in names:
        mask = mask_file(name)
        if masks.setdefault(mask, name) != name:
            raise DataError(
                f"{stream}: masks/{mask} would be the mask of {masks[mask]} and of {name}; rename "
                "one of the images"
            )


def _listed(stream: Path) -> list[Path]:
    # Some editors begin a text with a mark of its bytes, which is no part of the first name.
    text = stream.read_text(encoding="utf-8-sig", errors="replace")
    found: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name = Path(line.strip())
        if name in found:
            raise DataError(
                f"{stream}, line {number}: '{name}' is listed in line {found[name]} already, "
                "expected each file once, since a stream goes on by their names; remove the line, "
                "or list a link to the file"
            )
        found[name] = number
    return list(found)


def _natural(name: Path) -> list[tuple[int, int | str]]:
    """``frame_2`` before ``frame_10``."""
    parts = re.split(r"(\d+)", str(name))
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]
