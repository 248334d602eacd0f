"""Readings of many files on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Reading = TypeVar("Reading")

# Wraps readings, of which it is told the number.
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def read_all(
    read: Callable[[Item], Reading], items: Sequence[Item], progress: Progress | None = None
) -> Iterator[Reading]:
    """What ``read`` makes of each item, in their order.

    Args:
        read: Called in several threads.
        items: What is read.
        progress: See `Progress`.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        readings = threads.map(read, items)
        yield from progress(readings, len(items)) if progress else readings
