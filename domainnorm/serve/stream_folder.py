"""The folder that holds what came of a stream: what it was asked for, and nobody else's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from domainnorm.errors import CheckpointError
from domainnorm.evaluation import write_json
from domainnorm.serve.images.image_sources import MASKS
from domainnorm.storage import make_folders

ASKED, LOG, STATE, TIMELINE = "stream.json", "log.csv", "state.pt", "timeline.png"
PACKS = "packs"


def claim_folder(place: Path, asked: dict[str, Any]) -> None:
    """Make a folder for a stream, or find that of an earlier call that asked for the same.

    Args:
        place: The folder.
        asked: Model, stream and options.

    Raises:
        CheckpointError: It is another stream's, or holds files that would be overwritten.
    """
    make_folders(place)
    if (place / ASKED).exists():
        _check_same(place / ASKED, asked)
    else:
        _check_free(place)
    # Before all else is written: by this file the folder is known again.
    write_json(asked, place / ASKED)


def _check_same(path: Path, asked: dict[str, Any]) -> None:
    try:
        former = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); choose another --output"
        ) from error
    differing = [key for key in {**asked, **former} if former.get(key) != asked.get(key)]
    if differing:
        said = "; ".join(f"{key} was {former.get(key)}, now {asked.get(key)}" for key in differing)
        raise CheckpointError(
            f"{path.parent}: holds another stream ({said}); choose another --output, or delete it"
        )


def _check_free(place: Path) -> None:
    names = (LOG, STATE, TIMELINE, MASKS, PACKS)
    found = [name for name in names if (place / name).exists()]
    if found:
        raise CheckpointError(
            f"{place}: holds files of something else ({', '.join(found)}); choose another --output"
        )
