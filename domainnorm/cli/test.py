"""Evaluate the checkpoints of a run again and print its table."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from domainnorm import run
from domainnorm.cli.parser import Parser


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="folder a run has left")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="how it is tested, such as condition=mixture or evaluation.mask_size=original",
    )


def execute(arguments: Namespace) -> int:
    """Test every checkpoint of the run folder."""
    run.test_run(arguments.folder, arguments.overrides)
    return 0
