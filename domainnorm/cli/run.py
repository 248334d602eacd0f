"""Run a recipe, or go on with a run that was interrupted."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from domainnorm import recipe, run
from domainnorm.cli.parser import Parser
from domainnorm.cli.training import add_training, carry_out
from domainnorm.errors import RecipeError


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    add_training(parser)
    text = "try the recipe, made small, on drawn data in the layout that it reads; no download"
    parser.add_argument("--sample", action="store_true", help=text)


def execute(arguments: Namespace) -> int:
    """Train and test every stage of the recipe."""

    def start(loaded: recipe.Recipe, output: Path) -> Path:
        # Looked up here: a bad recipe is answered before torch is imported.
        if arguments.sample:
            # Those of a recipe take long; those of the command line are meant.
            asked = any(word.startswith("seed=") for word in arguments.words)
            folder = output / "samples" / loaded.name
            loaded = run.sample_recipe(loaded, folder, all_seeds=asked)
        return run.run_recipe(loaded, output)

    if arguments.sample and arguments.resume:
        raise RecipeError(["got --sample beside --resume, expected one of them"], "domainnorm run")
    return carry_out("run", arguments, start)
