"""Drawn streets as image and mask files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from domainnorm.data.datasets.label_sets import Lookup
from domainnorm.data.drawings.canvas import Scene
from domainnorm.data.drawings.street import draw_street
from domainnorm.data.masks import VOID


def streets(seed: int, stream: str, count: int) -> Iterator[Scene]:
    """Different scenes for each name of a stream, such as a domain and split."""
    digits = int.from_bytes(stream.encode(), "big") % 1_000_003
    for number in range(count):
        yield draw_street((seed * 1_000_003 + digits) * 1_000 + number)


def inverted(lookup: Lookup) -> Lookup:
    """The first value of a mask file for each class, (256,); 255 for classes it cannot hold."""
    values = np.full(256, VOID, dtype=np.uint8)
    for value in reversed(range(256)):
        if lookup[value] != VOID:
            values[lookup[value]] = value
    return values
