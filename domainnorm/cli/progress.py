"""A bar for images that are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def reading_bar(console: Any) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    """Wraps readings in a bar that vanishes at their end; none where nobody looks."""
    # Deferred: loading rich takes longer than everything else `domainnorm --help` does.
    from rich.progress import track  # noqa: PLC0415

    def wrapped(readings: Iterable[Any], count: int) -> Iterable[Any]:
        disabled = not console.is_terminal
        return track(readings, "reading", count, console=console, transient=True, disable=disabled)

    return wrapped
