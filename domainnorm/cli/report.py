"""Write the tables and figures of a run into one HTML file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from domainnorm import run
from domainnorm.cli.parser import Parser


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="folder a run has left")
    text = "where the page goes (default: RUN_FOLDER/report.html)"
    parser.add_argument("--out", "--output", type=Path, metavar="FILE", help=text)


def execute(arguments: Namespace) -> int:
    """Write the page and say where it is."""
    print(run.write_page(arguments.folder, arguments.out))
    return 0
