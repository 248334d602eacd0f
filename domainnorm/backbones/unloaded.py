"""Which weights of a network its file does not hold."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import timm

_LOADER = logging.getLogger("timm.models._builder")
_MISSING = re.compile(r"Missing keys \((.*)\) discovered while loading")


@contextmanager
def missing_weights() -> Iterator[list[str]]:
    """Collect the names that timm finds missing, while it creates a network.

    Where the number of classes differs, timm loads what fits and tells the rest in its log alone,
    below the level that is shown: weights of another network would leave all of it untrained.
    """
    missing: list[str] = []
    own, shown = _LOADER.level, _LOADER.getEffectiveLevel()

    def look(record: logging.LogRecord) -> bool:
        if match := _MISSING.match(record.getMessage()):
            missing.extend(match[1].split(", "))
        return record.levelno >= shown

    _LOADER.addFilter(look)
    _LOADER.setLevel(min(shown, logging.INFO))
    try:
        yield missing
    finally:
        _LOADER.setLevel(own)
        _LOADER.removeFilter(look)


def body_weights(names: Iterable[str], architecture: str) -> list[str]:
    """Those of many names that are weights or biases, and not of the head.

    Args:
        names: Keys of a state dict of the whole network.
        architecture: Its name, by which timm knows the head; an encoder has none, but its weights
            are loaded before it is cut off.
    """
    heads = timm.models.get_pretrained_cfg_value(architecture, "classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    return [
        name
        for name in names
        if name.endswith((".weight", ".bias")) and name.rpartition(".")[0] not in heads
    ]
