"""The folder that holds predictions: made beside its place, and moved there when complete."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domainnorm.errors import CheckpointError
from domainnorm.serve.images.image_sources import MASKS
from domainnorm.storage import make_folders

ASKED, PREDICTIONS = "prediction.json", "predictions.csv"
OVERLAYS, SHEET = "overlays.png", "classes.png"
_OWN = (ASKED, PREDICTIONS, MASKS, OVERLAYS, SHEET)


def check_free(place: Path, images: Path) -> None:
    """Refuse a folder that holds anything but an earlier prediction of the same images.

    Args:
        place: The folder, which need not exist.
        images: What is predicted now.

    Raises:
        CheckpointError: Names what it holds.
    """
    found = sorted(entry.name for entry in place.iterdir()) if place.exists() else []
    others = found if ASKED not in found else [name for name in found if name not in _OWN]
    if others:
        listing = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise CheckpointError(
            f"{place}: holds files of something else ({listing}), expected no folder yet, an empty "
            "one, or an earlier prediction of these images, which is replaced; choose another "
            "--output"
        )
    former = _former(place / ASKED) if found else str(images.resolve())
    if former != str(images.resolve()):
        raise CheckpointError(
            f"{place}: holds predictions of other images, {former}; choose another --output, or "
            "delete it"
        )


def _former(asked: Path) -> str:
    """The images of an earlier prediction."""
    try:
        return str(json.loads(asked.read_text(encoding="utf-8"))["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{asked}: cannot be read ({error}); choose another --output"
        ) from error


@contextmanager
def replaced(place: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of an earlier prediction at the end.

    After an error, or when interrupted, what was there before stays as it was.
    """
    make_folders(place.parent)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as made:
        yield Path(made)
        make_folders(place)
        # First what the folder is known by: killed from here on, it can be replaced again.
        (Path(made) / ASKED).replace(place / ASKED)
        for name in _OWN[1:]:
            if (place / name).is_dir():
                shutil.rmtree(place / name)
            (place / name).unlink(missing_ok=True)
        for entry in Path(made).iterdir():
            entry.replace(place / entry.name)
