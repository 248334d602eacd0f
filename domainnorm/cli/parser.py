"""Commands and their parsers: options anywhere, unknown ones answered with the nearest."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from domainnorm.errors import unknown
from domainnorm.terminal import printable

Options = TypeVar("Options")


@dataclass(frozen=True)
class Command:
    """A subcommand: what it does, in one line, its arguments, and how it comes to an exit code."""

    summary: str
    configure: Callable[[Parser], None]
    execute: Callable[[argparse.Namespace], int]


@dataclass(frozen=True)
class Action:
    """One of the things that a command does, with arguments and a help of its own."""

    summary: str
    form: str  # its words, for its usage and for messages
    add_options: Callable[[Parser], None] | None = None  # what it takes beside words


class Parser(argparse.ArgumentParser):
    """`argparse` with options between positionals and no abbreviations."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(f"domainnorm {command}", description=description, allow_abbrev=False)
        self._command = command
        self._own: Mapping[str, Action] = {}

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable(message), file)

    def add_actions(self, actions: Mapping[str, Action]) -> None:
        """Let the first word be one of ``actions``, which has a parser of its own.

        `read` gives its name as ``action`` and what follows, beside options, as ``words``.
        """
        self._own = actions
        forms = (f"  {self.prog} {name} {one.form}\n" for name, one in actions.items())
        self.usage = f"{self.prog} ACTION ..."
        self.epilog = (
            f"actions:\n{''.join(forms)}\nhelp for an action: {self.prog} {min(actions)} --help"
        )
        self.formatter_class = argparse.RawDescriptionHelpFormatter

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse; a wrong command line ends the program with exit code 2."""
        if self._own and arguments and not arguments[0].startswith("-"):
            if arguments[0] not in self._own:
                self.error(unknown("action", arguments[0], self._own))
            return self._read_action(arguments[0], arguments[1:])
        namespace, extra = self.parse_known_intermixed_args(arguments)
        if extra:
            options = [option for action in self._actions for option in action.option_strings]
            self.error(
                unknown("option", extra[0], options)
                if extra[0].startswith("-")
                else f"got '{extra[0]}', expected no further argument"
            )
        if self._own:
            self.error(f"expected one of {', '.join(self._own)} as the first word")
        return namespace

    def _read_action(self, name: str, arguments: Sequence[str]) -> argparse.Namespace:
        namespace = self.actions()[name].read(arguments)
        namespace.action = name
        return namespace

    def actions(self) -> dict[str, Parser]:
        """The parser of each action."""
        return {name: self._parser_of(name, action) for name, action in self._own.items()}

    def _parser_of(self, name: str, action: Action) -> Parser:
        parser = Parser(f"{self._command} {name}", action.summary)
        options = " [options]" if action.add_options else ""
        parser.usage = f"{parser.prog}{options} {action.form}"
        parser.add_argument("words", nargs="*", metavar="...", help=argparse.SUPPRESS)
        if action.add_options:
            action.add_options(parser)
        return parser

    def add_recipe(self) -> None:
        """Add ``RECIPE [key=value ...]``, of which `split_overrides` makes sense."""
        text = "name of a shipped recipe, or path of a YAML file"
        self.add_argument("recipe", metavar="RECIPE", help=text)
        text = "keys to change, such as seed=1 norm=dsbn method.lr=1e-3"
        self.add_argument("overrides", nargs="*", metavar="key=value", help=text)

    def add_fields(self, options: Any) -> None:
        """Add an option for each field of a dataclass, by its default and metadata.

        It has the name of the field, or ``option`` of the metadata, where Python has no such name.
        """
        for one in fields(options):
            metadata = dict(one.metadata)
            option = metadata.pop("option", f"--{one.name.replace('_', '-')}")
            self.add_argument(option, dest=one.name, default=one.default, **metadata)


def given(options: type[Options], arguments: argparse.Namespace) -> Options:
    """A dataclass of which `Parser.add_fields` has added the fields, as they were given."""
    names = [one.name for one in fields(options)]  # type: ignore[arg-type]
    return options(**{name: getattr(arguments, name) for name in names})
