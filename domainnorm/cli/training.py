"""What the commands that train have in common: a new run or ``--resume``, Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from domainnorm import recipe, run
from domainnorm.cli.parser import Parser
from domainnorm.errors import RecipeError

INTERRUPTED, TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """A scheduler, `timeout` or `kill` ends the process."""


def add_training(parser: Parser) -> None:
    """Add ``[RECIPE] [key=value ...] [--output DIR] [--resume RUN_FOLDER]``."""
    text = "shipped name or path of a YAML file, then key=value for keys to change"
    parser.add_argument("words", nargs="*", metavar="RECIPE [key=value]", help=text)
    text = "where run folders are made (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("outputs"), metavar="DIR", help=text)
    text = "go on with an interrupted run; takes no recipe, the folder holds it"
    parser.add_argument("--resume", type=Path, metavar="RUN_FOLDER", help=text)


def carry_out(
    command: str, arguments: Namespace, start: Callable[[recipe.Recipe, Path], Path]
) -> int:
    """Start a new run or go on with one, and say where its folder is.

    Args:
        command: The subcommand, for the line that says how to resume.
        arguments: What `add_training` defined.
        start: Takes the recipe and the output folder, returns the run folder.

    Returns:
        0, 130 when the user interrupts, or 143 when the process is told to end (SIGTERM).

    Raises:
        RecipeError: Neither or both of a recipe and ``--resume``, or a bad recipe.
    """
    words, folder = arguments.words, arguments.resume
    where = f"domainnorm {command}"
    if folder is not None and words:
        raise RecipeError([f"got '{words[0]}' beside --resume, expected one of them"], where)
    if folder is None and not words:
        raise RecipeError(["expected a recipe, or --resume RUN_FOLDER"], where)
    started = time.time()
    root = arguments.output
    try:
        with ended_like_ctrl_c():
            if folder is not None:
                done = run.resume_run(folder)
            else:
                loaded = recipe.load_recipe(words[0], words[1:])
                root = arguments.output / loaded.name
                done = start(loaded, arguments.output)
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns Ctrl-C into SystemExit(1) once training has begun.
        cause = error.__context__ if isinstance(error, SystemExit) else error
        if not isinstance(cause, KeyboardInterrupt):
            raise
        if run.is_first():
            print(_advice(command, folder or _newest(root, started)), file=sys.stderr)
        return TERMINATED if isinstance(cause, Terminated) else INTERRUPTED
    if run.is_first():
        print(f"run folder: {done}")
    return 0


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


def _newest(root: Path, started: float) -> Path | None:
    """The run folder below ``root`` that was made since ``started``."""
    made = [(file.stat().st_mtime, file.parent) for file in root.glob("*/recipe.yaml")]
    recent = [(when, folder) for when, folder in made if when >= started - 1]
    return max(recent)[1] if recent else None


def _advice(command: str, folder: Path | None) -> str:
    if folder is None:
        return "interrupted before anything was stored"
    return f"interrupted; go on with: domainnorm {command} --resume {folder}"
