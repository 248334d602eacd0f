"""Check recipes without running them; all problems of a recipe are reported at once."""

from __future__ import annotations

import sys
from argparse import Namespace

from domainnorm import recipe, run
from domainnorm.cli.parser import Parser, split_overrides
from domainnorm.errors import DataError, RecipeError


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    text = "shipped names or paths of YAML files, and key=value overrides for all of them"
    parser.add_argument("words", nargs="+", metavar="RECIPE [key=value]", help=text)
    text = (
        "also make every network and pass noise of the size of a training batch through it, as is "
        "done unasked for norms that some networks refuse; needs the data, reads no image"
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
            if arguments.build:
                run.rehearse(loaded)
            elif recipe.needs_network(loaded):
                _build(loaded, reference)
        except RecipeError as error:
            print(RecipeError(error.problems, reference), file=sys.stderr)
            code = 2
        else:
            print(f"ok  {reference}")
    return code


def _build(loaded: recipe.Recipe, reference: str) -> None:
    """Ask the network, if there are data to make it for."""
    try:
        run.rehearse(loaded)
    except RecipeError as error:
        if not isinstance(error.__cause__, DataError):
            raise
        print(f"{reference}: the norms were not tried: {error.__cause__}", file=sys.stderr)
