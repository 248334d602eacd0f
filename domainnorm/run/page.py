"""The page of a run; reads its files alone, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

from domainnorm.errors import CheckpointError
from domainnorm.report import run_page
from domainnorm.run.folder import not_a_run
from domainnorm.storage import replace_text

PAGE, RESULTS = "report.html", "results.md"


def write_results(folder: Path, tables: str) -> None:
    """Write ``results.md``: tables, and after them all figures of the run."""
    figures = sorted(path.relative_to(folder) for path in (folder / "figures").rglob("*.png"))
    shown = "".join(f"\n![{path.stem}]({quote(path.as_posix())})\n" for path in figures)
    replace_text(folder / RESULTS, tables + shown)


def write_page(folder: Path, file: Path | None = None) -> Path:
    """Write ``report.html``: tables, figures, recipe and environment of a run in one file.

    Args:
        folder: A run has left it.
        file: Where the page goes, or a folder for it; the run's when None.

    Returns:
        The file.

    Raises:
        CheckpointError: Not the folder of a run, or one without results.
    """
    if not (folder / "run.json").is_file():
        raise not_a_run(folder, "run.json")
    command = "run"
    try:
        made = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        command = "run" if made["purpose"] == "run" else "matrix"
        page = run_page(folder, str(made["recipe"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder}: no results that can be read ({error}); of a run that was interrupted, "
            f"`domainnorm {command} --resume {folder}` makes some"
        ) from error
    place = folder if file is None else file
    if place.is_dir():
        place /= PAGE
    replace_text(place, page)
    return place
