"""Argument parser of one subcommand: options anywhere, unknown ones answered with the nearest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from domainnorm.errors import unknown
from domainnorm.recipe.overrides import OVERRIDE


class Parser(argparse.ArgumentParser):
    """`argparse` with options between positionals and no abbreviations.

    Args:
        command: The subcommand.
        description: What it does.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(f"domainnorm {command}", description=description, allow_abbrev=False)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse; a wrong command line ends the program with exit code 2."""
        namespace, extra = self.parse_known_intermixed_args(arguments)
        if extra:
            options = [option for action in self._actions for option in action.option_strings]
            self.error(
                unknown("option", extra[0], options)
                if extra[0].startswith("-")
                else f"got '{extra[0]}' where nothing more is expected"
            )
        return namespace

    def add_recipe(self) -> None:
        """Add ``RECIPE [key=value ...]``, of which `split_overrides` makes sense."""
        self.add_argument("recipe", metavar="RECIPE", help="shipped name or path of a YAML file")
        self.add_argument(
            "overrides",
            nargs="*",
            metavar="key=value",
            help="keys to change, such as seed=1 norm=dsbn method.lr=1e-3",
        )


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Recipes and ``key=value`` overrides of one command line."""
    overrides = [word for word in words if OVERRIDE.fullmatch(word)]
    return [word for word in words if word not in overrides], overrides
