"""Run a recipe, or go on with a run that was interrupted."""

from __future__ import annotations

from argparse import Namespace

from domainnorm import run
from domainnorm.cli.parser import Parser
from domainnorm.cli.training import add_training, carry_out


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    add_training(parser)


def execute(arguments: Namespace) -> int:
    """Train and test every stage of the recipe."""
    return carry_out("run", arguments, run.run_recipe)
