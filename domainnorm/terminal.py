"""What reaches the terminal: names out of recipes and files are text there, never commands."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # light commands answer without it
    from rich.console import Console

# But line breaks and tabs; and bytes of names that are not UTF-8, which no stream takes.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_WIDTH_OF_A_FILE = 120


def printable(text: str) -> str:
    """The text with control characters spelled out: they could clear a screen, or forge a line."""
    return _CONTROL.sub(lambda found: _spelled(ord(found[0])), text)


def _spelled(number: int) -> str:
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def say(text: object = "", *, error: bool = False, end: str = "\n") -> None:
    """Print a text of which parts may come from a stranger, on standard output or error."""
    print(printable(str(text)), file=sys.stderr if error else sys.stdout, end=end)


def create_console(*, error: bool = False) -> Console:
    """A console as wide as the terminal; a file or pipe gets lines of 120 characters."""
    from rich.console import Console  # noqa: PLC0415

    class Guarded(Console):
        def render(self, *arguments: Any, **options: Any) -> Any:
            for part in super().render(*arguments, **options):
                yield part if part.control else part._replace(text=printable(part.text))

    console = Guarded(highlight=False, stderr=error)
    if not console.is_terminal:
        console = Guarded(highlight=False, stderr=error, width=_WIDTH_OF_A_FILE)
    return console
