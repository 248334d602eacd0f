"""Show a recipe with its parts merged and every default spelled out."""

from __future__ import annotations

import sys
from argparse import Namespace

from domainnorm import recipe
from domainnorm.cli.parser import Parser


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.add_recipe()


def execute(arguments: Namespace) -> int:
    """Print the resolved YAML, highlighted on a terminal and plain in a pipe."""
    text = recipe.load_recipe(arguments.recipe, arguments.overrides).to_yaml()
    if sys.stdout.isatty():
        # Deferred: loading rich takes longer than all the rest, and a pipe needs none of it.
        from rich.console import Console  # noqa: PLC0415
        from rich.syntax import Syntax  # noqa: PLC0415

        Console().print(Syntax(text, "yaml", background_color="default"))
    else:
        print(text, end="")
    return 0
