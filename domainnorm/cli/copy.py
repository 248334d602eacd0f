"""Copy a shipped recipe into a file of your own, to edit it."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

from domainnorm import recipe
from domainnorm.cli.parser import Parser
from domainnorm.errors import DomainNormError


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("recipe", metavar="RECIPE", help="shipped name")
    text = "file or folder; the recipe's own file name in this folder when left out"
    parser.add_argument("destination", nargs="?", default=".", metavar="DEST", help=text)
    parser.add_argument("--force", action="store_true", help="overwrite the destination")


def execute(arguments: Namespace) -> int:
    """Copy the file as it is, comments included; its parts stay where they ship.

    Raises:
        DomainNormError: The destination exists and ``--force`` was not given, or cannot be
            written.
    """
    source = recipe.find_recipe(arguments.recipe)
    destination = Path(arguments.destination)
    if destination.is_dir() or arguments.destination.endswith("/"):
        destination = destination / source.name
    elif destination.suffix not in (".yaml", ".yml"):
        destination = destination.with_name(f"{destination.name}.yaml")
    if destination.exists() and not arguments.force:
        raise DomainNormError(f"{destination} exists; use --force to overwrite it")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    except (OSError, shutil.SameFileError) as error:
        raise DomainNormError(f"{destination}: cannot be written ({error})") from error
    print(f"copied to {destination}; edit it, then: domainnorm run {destination}")
    return 0
