"""Tables of ratios, for a terminal or for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def render(head: Sequence[str], rows: Iterable[Sequence[str]], markdown: bool) -> str:
    """Rows under a head, columns aligned or as a Markdown table."""
    if markdown:
        rule = ["---"] + ["---:"] * (len(head) - 1)
        return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])
    lines = [head, *rows]
    widths = [max(len(row[column]) for row in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in lines
    )


def verdict(found: float, target: float) -> str:
    """The target, marked where it is missed."""
    return f"≤ {target:.2f}" + ("" if found <= target else " missed")
