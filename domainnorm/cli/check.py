"""Check recipes without running them; all problems of a recipe are reported at once."""

from __future__ import annotations

import sys
from argparse import Namespace

from domainnorm import recipe, run
from domainnorm.cli.parser import Parser, split_overrides
from domainnorm.errors import RecipeError


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    text = "shipped names or paths of YAML files, and key=value overrides for all of them"
    parser.add_argument("words", nargs="+", metavar="RECIPE [key=value]", help=text)
    text = (
        "also make every network and pass noise of the size of a training batch through it, which "
        "shows what its layers refuse; needs the data, reads no image"
    )
    parser.add_argument("--build", action="store_true", help=text)


def execute(arguments: Namespace) -> int:
    """Print ``ok`` for a good recipe and the problems of a bad one."""
    references, overrides = split_overrides(arguments.words)
    if not references:
        raise RecipeError(["no recipe given, only overrides"], where="domainnorm check")
    code = 0
    for reference in references:
        try:
            loaded = recipe.load_recipe(reference, overrides)
            recipe.check_needs(loaded)
            if arguments.build:
                run.rehearse(loaded)
        except RecipeError as error:
            print(error, file=sys.stderr)
            code = 2
        else:
            print(f"ok  {reference}")
    return code
