"""Picks the subcommand and turns errors into exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from textwrap import dedent

from domainnorm.cli.parser import Parser
from domainnorm.errors import DomainNormError, RecipeError, unknown

COMMANDS = (
    "list",
    "show",
    "check",
    "copy",
    "run",
    "test",
    "matrix",
    "predict",
    "data",
    "pack",
    "adapt",
    "export",
    "report",
)
OPTIONS = ("-h", "--help", "--version")
DONE, FAILED, MISUSED = 0, 1, 2
# What a file system answers that a user can mend; any other OSError is a defect of ours.
_STORAGE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EROFS: "choose another folder with --output",
    errno.EACCES: "choose another folder with --output",
    errno.ENOTDIR: "choose another folder with --output",
    errno.EEXIST: "choose another folder with --output",
}


@dataclass(frozen=True)
class Command:
    """A subcommand, found as a file of this folder.

    Args:
        summary: What it does, in one line.
        configure: Adds its arguments to a parser.
        execute: Carries it out and returns the exit code.
    """

    summary: str
    configure: Callable[[Parser], None]
    execute: Callable[..., int]


def find_command(name: str) -> Command:
    """Import the file of a subcommand."""
    module = import_module(f"domainnorm.cli.{name}")
    summary = (module.__doc__ or "").partition("\n")[0]
    return Command(summary, module.configure, module.execute)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console command.

    Args:
        arguments: Words after ``domainnorm``; those of the process when None.

    Returns:
        0 done, 1 failure while running, 2 bad recipe or command line, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in OPTIONS[:2]:
        print(_help())
        return DONE
    if words[0] == "--version":
        print(f"domainnorm {version('domainnorm')}")
        return DONE
    if words[0] not in COMMANDS:
        is_option = words[0].startswith("-")
        kind, known = ("option", OPTIONS) if is_option else ("command", COMMANDS)
        print(f"domainnorm: {unknown(kind, words[0], known)}", file=sys.stderr)
        return MISUSED
    return _execute(words[0], words[1:])


def _execute(name: str, words: Sequence[str]) -> int:
    command = find_command(name)
    parser = Parser(name, command.summary)
    command.configure(parser)
    try:
        return command.execute(parser.read(words))
    except RecipeError as error:
        print(error, file=sys.stderr)
        return MISUSED
    except DomainNormError as error:
        print(f"domainnorm {name}: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has left; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        print(f"domainnorm {name}: {_storage_message(error, name)}", file=sys.stderr)
        return FAILED


def _storage_message(error: OSError, command: str) -> str:
    place = f"{error.filename}: " if error.filename else ""
    is_late = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    resumed = ", then go on with --resume RUN_FOLDER: what is stored stays"
    return (
        f"{place}cannot be written ({os.strerror(error.errno or 0)}); {_STORAGE[error.errno or 0]}"
        f"{resumed if is_late and command in ('run', 'matrix') else ''}"
    )


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {find_command(name).summary}" for name in COMMANDS)
    start = """\
        usage: domainnorm COMMAND ...

        Fits one network to many domains: a timm backbone with domain-conditioned norms.

        commands:
        """
    end = """
        options:
          -h, --help  show this, or the help of a command: domainnorm run --help
          --version   show the version

        example: domainnorm run quickstart trainer.max_epochs=2"""
    return f"{dedent(start)}{commands}\n{dedent(end)}"
