"""The console program: picks the subcommand, turns errors, Ctrl-C and SIGTERM into exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from textwrap import dedent
from typing import Any

from domainnorm.cli.parser import Command, Parser
from domainnorm.errors import DomainNormError, RecipeError, unknown
from domainnorm.terminal import say

# Where each is, so that one does not import what the others need.
COMMANDS = {
    "start": "start_command",
    "list": "recipe_commands",
    "show": "recipe_commands",
    "check": "recipe_commands",
    "copy": "recipe_commands",
    "docs": "recipe_commands",
    "run": "run_commands",
    "test": "run_commands",
    "matrix": "run_commands",
    "compare": "run_commands",
    "predict": "serving_commands",
    "data": "data_commands",
    "pack": "serving_commands",
    "adapt": "serving_commands",
    "translate": "serving_commands",
    "restore": "serving_commands",
    "generate": "serving_commands",
    "export": "serving_commands",
    "report": "run_commands",
}
OPTIONS = ("-h", "--help", "--version")
DONE, FAILED, MISUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
# What a file system answers that a user can mend; any other OSError is a defect of ours.
_STORAGE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    errno.EFBIG: "raise the limit on file sizes",
    errno.ENAMETOOLONG: "take a shorter name",
    **dict.fromkeys(
        (errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST),
        "choose another folder with --output",
    ),
}


def find_command(name: str) -> Command:
    """Import a subcommand."""
    commands: dict[str, Command] = import_module(f"domainnorm.cli.{COMMANDS[name]}").COMMANDS
    return commands[name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console command, by the words of the process when None are given.

    Returns:
        0 done, 1 failure while running, 2 bad recipe or command line, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in OPTIONS[:2]:
        say(_help())
        return DONE
    if words[0] == "--version":
        say(f"domainnorm {version('domainnorm')}")
        return DONE
    if words[0] not in COMMANDS:
        is_option = words[0].startswith("-")
        kind, known = ("option", OPTIONS) if is_option else ("command", COMMANDS)
        say(f"domainnorm: {unknown(kind, words[0], known)}", error=True)
        return MISUSED
    return _execute(words[0], words[1:])


def _execute(name: str, words: Sequence[str]) -> int:
    command = find_command(name)
    parser = Parser(name, command.summary)
    command.configure(parser)
    try:
        return command.execute(parser.read(words))
    except RecipeError as error:
        say(error, error=True)
        return MISUSED
    except DomainNormError as error:
        say(f"domainnorm {name}: {error}", error=True)
        return FAILED
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has left; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        say(f"domainnorm {name}: {_storage_message(error, name)}", error=True)
        return FAILED


def _storage_message(error: OSError, command: str) -> str:
    place = f"{error.filename}: " if error.filename else ""
    is_late = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    resumed = ", then go on with --resume RUN_FOLDER: what is stored stays"
    return (
        f"{place}cannot be written ({os.strerror(error.errno or 0)}); {_STORAGE[error.errno or 0]}"
        f"{resumed if is_late and command in ('run', 'matrix', 'compare') else ''}"
    )


class Terminated(KeyboardInterrupt):
    """A scheduler, `timeout` or `kill` ends the process."""


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """SIGTERM is an exception here: Lightning notes it, and goes on or exits with 0."""
    usual = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {find_command(name).summary}" for name in COMMANDS)
    start = """\
        usage: domainnorm COMMAND ...

        Fit one network to many domains: a timm backbone with domain-conditioned norms.

        commands:
        """
    end = """
        options:
          -h, --help  show this help; domainnorm run --help shows the help of a command
          --version   show the version

        example: domainnorm run quickstart trainer.max_epochs=2"""
    return f"{dedent(start)}{commands}\n{dedent(end)}"
