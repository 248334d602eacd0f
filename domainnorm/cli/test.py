"""Evaluate the checkpoints of a run again and print its table."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from domainnorm import run
from domainnorm.cli.parser import Parser


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="folder a run has left")


def execute(arguments: Namespace) -> int:
    """Test every checkpoint of the run folder."""
    run.test_run(arguments.folder)
    return 0
