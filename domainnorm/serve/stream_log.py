"""The log of a stream: a line for each image, written as it is predicted, and what it shows."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import islice
from pathlib import Path

from domainnorm.errors import CheckpointError
from domainnorm.report import save_timeline
from domainnorm.storage import DAMAGED, whole_file

# A name may hold "|" and "=" itself: it ends where a number and the end of a pair follow.
_WEIGHT = re.compile(r"(.*?)=(\d+(?:\.\d+)?)(?:\||$)", re.DOTALL)


@dataclass(frozen=True)
class StreamLine:
    """What the log says of one image."""

    image: str  # its file, below the folder of the stream
    prediction: str = ""  # class, findings joined by "|", or file of the mask; empty if passed over
    confidence: str = ""  # probability of the prediction, mean over pixels or findings
    domain: str = ""  # that of the largest weight
    weights: str = ""  # "domain=weight" of each domain above 0.0005, joined by "|"
    unlike: str = ""  # 1 where the image is unlike all domains known then
    evidence: str = ""  # for a new domain, after this image
    event: str = ""  # an alarm and what came of it, or why the image could not be read

    @property
    def domain_weights(self) -> dict[str, float]:
        """Domain -> weight."""
        return {name: float(weight) for name, weight in _WEIGHT.findall(self.weights)}


_COLUMNS = [field.name for field in fields(StreamLine)]


def read_log(path: Path, number: int | None = None) -> list[StreamLine]:
    """The first lines of a log, all by default; none where there is no file yet.

    What comes after them is not looked at: a kill may have cut it.

    Raises:
        CheckpointError: It is not a log, or a line of it is broken.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if header != _COLUMNS:
                raise ValueError(f"columns {', '.join(header)}")
            return [StreamLine(*line) for line in islice(lines, number)]
    except (csv.Error, *DAMAGED) as error:
        raise CheckpointError(
            f"{path}: not the log of a stream ({error}); choose another --output"
        ) from error


def write_log(path: Path, lines: Iterable[StreamLine]) -> None:
    """Replace a log by these lines."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *map(astuple, lines)])


def append_log(path: Path, lines: Iterable[StreamLine]) -> None:
    """Add lines; they are on the disk when this returns."""
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(map(astuple, lines))
        file.flush()
        os.fsync(file.fileno())


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
    """Draw domain weights, evidence and confidence; nothing where no image could be read."""
    shown = [line for line in lines if line.domain]
    if not shown:
        return
    weights = [line.domain_weights for line in shown]
    curves = {
        name: [one.get(name, 0.0) for one in weights]
        for name in domain_names
        if any(name in one for one in weights)
    }
    events = {
        n: line.event.removeprefix("new domain ").strip("'")
        for n, line in enumerate(shown)
        if line.event
    }
    evidence = [float(line.evidence) for line in shown]
    confidence = [float(line.confidence) for line in shown]
    save_timeline(curves, evidence, confidence, events, run_length, file, title)
