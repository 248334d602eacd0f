"""Run a recipe, or go on with a run that was interrupted."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from domainnorm import recipe, run
from domainnorm.cli.parser import Parser
from domainnorm.cli.training import add_training, carry_out


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    add_training(parser)


def execute(arguments: Namespace) -> int:
    """Train and test every stage of the recipe."""

    def start(loaded: recipe.Recipe, output: Path) -> Path:
        # Looked up here: a bad recipe is answered before torch is imported.
        return run.run_recipe(loaded, output)

    return carry_out("run", arguments, start)
