"""What a stream has shown, from the lines of its log."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domainnorm.report import save_timeline
from domainnorm.serve.stream_log import StreamLine


@dataclass(frozen=True)
class Adapted:
    """What `adapt_run` has left.

    Args:
        folder: Where the files are.
        images: Number of images in the log.
        passed_over: How many of them were blank, or could not be read.
        domains: Domain -> number of images taken for it.
        opened: Domain that was opened -> number of the image at which it was.
    """

    folder: Path
    images: int
    passed_over: int
    domains: dict[str, int]
    opened: dict[str, int]


def summarize(folder: Path, lines: Sequence[StreamLine]) -> Adapted:
    """What happened, by the log in ``folder``."""
    taken = Counter(line.domain for line in lines if line.domain)
    opened = {}
    for number, line in enumerate(lines, 1):
        if match := re.fullmatch(r"new domain '(.+)'", line.event):
            opened[match[1]] = number
    passed_over = sum(not line.domain for line in lines)
    return Adapted(folder, len(lines), passed_over, dict(taken), opened)


def draw_timeline(
    lines: Sequence[StreamLine],
    domain_names: Sequence[str],
    run_length: float,
    file: Path,
    title: str,
) -> None:
    """Draw domain weights, evidence and confidence; nothing where no image could be read.

    Args:
        lines: The log.
        domain_names: Domains in the order of their colours.
        run_length: Where evidence raises an alarm.
        file: The figure.
        title: Its title.
    """
    shown = [line for line in lines if line.domain]
    if not shown:
        return
    weights = [line.domain_weights for line in shown]
    save_timeline(
        {
            name: [one.get(name, 0.0) for one in weights]
            for name in domain_names
            if any(name in one for one in weights)
        },
        [float(line.evidence) for line in shown],
        [float(line.confidence) for line in shown],
        {
            n: line.event.removeprefix("new domain ").strip("'")
            for n, line in enumerate(shown)
            if line.event
        },
        run_length,
        file,
        title,
    )
