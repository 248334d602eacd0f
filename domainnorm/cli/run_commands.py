"""Commands that carry out a recipe, test a run again and write its page."""

from __future__ import annotations

import time
import webbrowser
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from domainnorm import recipe, run
from domainnorm.cli.parser import Command, Parser
from domainnorm.cli.program import INTERRUPTED, TERMINATED, Terminated, ended_like_ctrl_c
from domainnorm.errors import RecipeError
from domainnorm.terminal import say

KINDS = {
    "models": "fine-tune one model per domain, test every model on every domain",
    "norms": "train one multi-domain model, test every domain with every domain's norms",
    "both": "do both",
}


def add_training(parser: Parser) -> None:
    """Add ``[RECIPE] [key=value ...] [--output DIR] [--resume RUN_FOLDER]``."""
    text = "name of a shipped recipe or path of a YAML file, then keys to change"
    parser.add_argument("words", nargs="*", metavar="RECIPE [key=value]", help=text)
    text = "folder for run folders (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("outputs"), metavar="DIR", help=text)
    text = "continue an interrupted run; its folder holds the recipe, so give none"
    parser.add_argument("--resume", type=Path, metavar="RUN_FOLDER", help=text)


def carry_out(
    command: str,
    arguments: Namespace,
    start: Callable[[Any, Path], Path],
    resume: Callable[[Path], Path] | None = None,
    load: Callable[[str, Sequence[str]], Any] | None = None,
) -> int:
    """Start a new run or go on with one, by what `add_training` defined; say where its folder is.

    Args:
        command: Its name.
        arguments: As `add_training` has defined them.
        start: Makes a folder below the output of what was loaded, and carries it out.
        resume: Goes on with a folder; by default with that of a run or a matrix.
        load: Reads recipe and overrides; by default a single recipe.

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
                done = (resume or run.resume_run)(folder)
            else:
                loaded = (load or recipe.load_recipe)(words[0], words[1:])
                root = arguments.output / loaded.name
                done = start(loaded, arguments.output)
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns Ctrl-C into SystemExit(1) once training has begun.
        cause = error.__context__ if isinstance(error, SystemExit) else error
        if not isinstance(cause, KeyboardInterrupt):
            raise
        if run.is_first():
            made = folder or _newest(root, started)
            way = f"; go on with: domainnorm {command} --resume {made}"
            say("interrupted" + (way if made else " before anything was stored"), error=True)
        return TERMINATED if isinstance(cause, Terminated) else INTERRUPTED
    if run.is_first():
        say(f"run folder: {done}")
        page = done / "report.html"
        if page.is_file():
            say(f"report: {page}")
    return 0


def _newest(root: Path, started: float) -> Path | None:
    """The run folder below ``root`` that was made since ``started``."""
    made = [(file.stat().st_mtime, file.parent) for file in root.glob("*/recipe.yaml")]
    recent = [(when, folder) for when, folder in made if when >= started - 1]
    return max(recent)[1] if recent else None


def _configure_run(parser: Parser) -> None:
    add_training(parser)
    _add_sample(parser)


def _add_sample(parser: Parser) -> None:
    text = "try a small version of the recipe on synthetic data in its layout; no download"
    parser.add_argument("--sample", action="store_true", help=text)


def _check_sample(arguments: Namespace, command: str) -> None:
    if arguments.sample and arguments.resume:
        text = "got --sample beside --resume, expected one of them"
        raise RecipeError([text], f"domainnorm {command}")


def _run(arguments: Namespace) -> int:
    """Train and test every stage of the recipe."""

    def start(loaded: recipe.Recipe, output: Path) -> Path:
        # Looked up here: a bad recipe is answered before torch is imported.
        if arguments.sample:
            # Those of a recipe take long; those of the command line are meant.
            asked = any(word.startswith("seed=") for word in arguments.words)
            folder = output / "samples" / loaded.name
            loaded = run.sample_recipe(loaded, folder, all_seeds=asked)
        return run.run_recipe(loaded, output)

    _check_sample(arguments, "run")
    return carry_out("run", arguments, start)


def _configure_matrix(parser: Parser) -> None:
    add_training(parser)
    text = "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    parser.add_argument("--kind", choices=KINDS, default="both", help=f"{text} (default)")


def _matrix(arguments: Namespace) -> int:
    """Train the models of the matrix and test them."""

    def start(loaded: recipe.Recipe, output: Path) -> Path:
        # Looked up here: a bad recipe is answered before torch is imported.
        return run.run_matrix(loaded, output, arguments.kind)

    return carry_out("matrix", arguments, start)


def _configure_compare(parser: Parser) -> None:
    add_training(parser)
    parser.epilog = (
        "Give several values of a key as a list: norm=[dsbn,cin]. A key whose value is a list, "
        "such as data.target, takes a list of lists. The grid has all combinations."
    )
    _add_sample(parser)
    text = "run cells as processes of this machine (default), or as submitit jobs, as on Slurm"
    parser.add_argument("--engine", choices=("process", "submitit"), default="process", help=text)
    text = "cells at a time (default: one per device; on a CPU, as many as its cores allow)"
    parser.add_argument("--jobs", type=_positive, metavar="N", help=text)
    text = "option of submitit, such as slurm_partition=gpu or timeout_min=600; may be repeated"
    parser.add_argument("--submit", action="append", default=[], metavar="KEY=VALUE", help=text)
    text = "check every cell and print the plan, but run nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"got '{text}', expected a whole number above 0")
    return int(text)


def _compare(arguments: Namespace) -> int:
    """Carry out every cell of a grid."""
    _check_sample(arguments, "compare")
    if arguments.dry_run and arguments.resume:
        text = "got --dry-run beside --resume, expected one of them"
        raise RecipeError([text], "domainnorm compare")
    options = _submit_options(arguments.submit)
    run.check_engine(arguments.engine, options)

    def load(reference: str, overrides: Sequence[str]) -> recipe.Grid:
        grid = recipe.read_grid(reference, overrides)
        if not arguments.sample:
            return grid
        folder = arguments.output / "samples" / grid.name
        return replace(grid, name=f"{grid.name}-sample", cells=run.sample_cells(grid.cells, folder))

    def engine(recipes: Sequence[recipe.Recipe], folder: Path) -> run.Engine:
        return run.create_engine(arguments.engine, recipes, folder, arguments.jobs, options)

    if arguments.dry_run and arguments.words:
        grid = load(arguments.words[0], arguments.words[1:])
        run.check_grid(grid)
        say(run.describe_plan(grid))
        return 0
    return carry_out(
        "compare",
        arguments,
        lambda grid, output: run.run_comparison(grid, output, engine),
        lambda folder: run.resume_comparison(folder, engine),
        load,
    )


def _submit_options(words: Sequence[str]) -> dict[str, Any]:
    from domainnorm.recipe.problems import Problems  # noqa: PLC0415 - reads YAML, help does not
    from domainnorm.recipe.tree import parse_overrides  # noqa: PLC0415

    problems = Problems()
    pairs = parse_overrides(words, problems)
    if problems:
        raise RecipeError(problems.lines, "domainnorm compare --submit")
    return dict(pairs)


def _configure_test(parser: Parser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="folder of a run")
    text = "test settings to change: condition=mixture or evaluation.mask_size=original"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=text)


def _test(arguments: Namespace) -> int:
    """Test every checkpoint of the run folder."""
    run.test_run(arguments.folder, arguments.overrides)
    return 0


def _configure_report(parser: Parser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="folder of a run")
    text = "HTML file to write (default: RUN_FOLDER/report.html)"
    parser.add_argument("--out", "--output", type=Path, metavar="FILE", help=text)
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def _report(arguments: Namespace) -> int:
    """Write the page, say where it is, and show it where that is asked for."""
    page = run.write_page(arguments.folder, arguments.out)
    say(page)
    if arguments.open and not webbrowser.open(page.resolve().as_uri()):
        say(f"domainnorm report: no browser was found; open {page} yourself", error=True)
        return 1
    return 0


COMMANDS = {
    "run": Command("Run a recipe, or continue an interrupted run.", _configure_run, _run),
    "test": Command(
        "Test the checkpoints of a run again, and print the table.", _configure_test, _test
    ),
    "matrix": Command(
        "Test every domain with every domain's model or norms.", _configure_matrix, _matrix
    ),
    "compare": Command(
        "Run a grid of recipes, and compare their methods in one table.",
        _configure_compare,
        _compare,
    ),
    "report": Command(
        "Write the tables and figures of a run into one HTML page.", _configure_report, _report
    ),
}
