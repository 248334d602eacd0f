"""The terminal that progress and tables are printed to."""

from __future__ import annotations

from rich.console import Console

_WIDTH_OF_A_FILE = 120


def create_console() -> Console:
    """A console as wide as the terminal; a file or pipe gets lines of 120 characters."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_OF_A_FILE)
