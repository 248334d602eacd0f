"""Files that are whole or not there, and the folders that they are in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from domainnorm.errors import CheckpointError


def not_a_run(folder: Path, missing: str) -> CheckpointError:
    """The error about a folder that lacks a file of every run."""
    return CheckpointError(
        f"{folder}: no {missing} in it; expected a folder that `domainnorm run` has made, "
        "outputs/<recipe>/<time>"
    )


def make_folders(folder: Path, *, new: bool = False) -> None:
    """Make a folder that a user has named, and those above it.

    Args:
        folder: Where something is written.
        new: Whether there must be none yet.

    Raises:
        CheckpointError: There is no making folders in that place, as below /proc.
    """
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Write a text file; an existing one is replaced only when the new one is complete."""
    make_folders(path.parent)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def digest_of(file: Path) -> str:
    """SHA-256 of what a file holds, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
